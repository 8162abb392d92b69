"""The baselines: un-prompted SAM and GT-SAM."""

from __future__ import annotations

import numpy as np
from segment_anything import SamPredictor

from salip_ray.cascade.baselines import unprompted
from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.geometry import to_original
from salip_ray.config import TaskConfig
from tests.unit.cascade.conftest import ALL, TASK, of, part


def test_unprompted_takes_the_k_most_confident_and_the_k_largest():
    classes = TaskConfig(name="t", prompts={"a": ("x",), "b": ("y",)}, top_k={"a": 2}).classes
    parts = [
        part(2, slice(0, 10), 0.9),
        part(3, slice(10, 40), 0.7),
        part(5, slice(20, 25), 0.9),
        part(8, slice(30, 60), 0.8),
    ]
    masks = {(m.method, m.label): m for m in unprompted(classes, parts, (80, 120))}
    ids = {key: mask.candidate_ids for key, mask in masks.items()}
    assert ids == {
        ("unprompted_confident", "a"): (2, 5),  # of equals, the lower id first
        ("unprompted_confident", "b"): (2,),
        ("unprompted_largest", "a"): (3, 8),
        ("unprompted_largest", "b"): (3,),
    }
    confident = masks["unprompted_confident", "a"]
    np.testing.assert_array_equal(
        confident.mask, to_original(parts[0].mask | parts[2].mask, (80, 120))
    )
    np.testing.assert_allclose(confident.sam.predicted_iou, 0.9)
    assert confident.prompt_boxes == ()
    assert confident.clip is None
    assert unprompted(classes, [], (80, 120)) == []


def test_gt_sam_is_sam_prompted_with_the_references_boxes(cascade, sam, picture):
    image = picture(90, 128)
    lung = np.zeros((90, 128), dtype=bool)
    lung[10:50, 10:40] = lung[15:60, 80:115] = True
    lung[88, 2] = True  # too small for a box
    mask = of(cascade(image, references={"lung": lung}), "gt_sam")
    assert list(mask) == ["lung"]
    assert mask["lung"].prompt_boxes == ((10, 10, 39, 49), (80, 15, 114, 59))
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    expected = [
        predictor.predict(box=np.array(box), multimask_output=False)[0][0]
        for box in mask["lung"].prompt_boxes
    ]
    np.testing.assert_array_equal(mask["lung"].mask, expected[0] | expected[1])


def test_an_empty_reference_has_no_gt_sam_mask(cascade, picture):
    empty = {"lung": np.zeros((90, 128), dtype=bool)}
    assert of(cascade(picture(90, 128), references=empty), "gt_sam") == {}


def test_without_the_cascade_mode_no_clip_is_loaded(sam, configure, picture, monkeypatch):
    monkeypatch.setattr("salip_ray.cascade.loading.load_clip", None)
    config = configure(run={"modes": ["unprompted"]})
    result = Cascade(config, sam=sam)(picture(90, 128))
    assert {m.method for m in result.masks} == {"unprompted_confident", "unprompted_largest"}
    assert (result.selections, result.outcomes) == ((), ())


def test_other_modes_do_not_change_cascade(sam, clip, configure, picture, references):
    image = picture(180, 256)
    alone = Cascade(configure(task=TASK), sam=sam, clip=clip)(image)
    beside = Cascade(configure(task=TASK, run={"modes": ALL}), sam=sam, clip=clip)(
        image, references=references
    )
    assert alone.selections == beside.selections
    for label, mask in of(alone, "cascade").items():
        np.testing.assert_array_equal(mask.mask, of(beside, "cascade")[label].mask)


def test_gt_sam_is_prompted_with_plain_boxes_whatever_refine_says(sam, clip, configure, picture):
    image = picture(90, 128)
    lung = np.zeros((90, 128), dtype=bool)
    lung[10:50, 10:40] = True
    plain, rich = (
        Cascade(configure(task=TASK, run={"modes": ALL}, refine=options), sam=sam, clip=clip)(
            image, references={"lung": lung}
        )
        for options in ({}, {"box_jitter": 4, "jitter_share": 0.4, "centre_point": True})
    )
    expected = of(plain, "gt_sam")["lung"].mask
    np.testing.assert_array_equal(of(rich, "gt_sam")["lung"].mask, expected)
    assert (of(rich, "cascade")["lung"].mask != of(plain, "cascade")["lung"].mask).any()
