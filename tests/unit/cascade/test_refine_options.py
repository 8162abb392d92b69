"""Prompts richer than a box, against the official predictor; and the tidying of masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from segment_anything import SamPredictor

from salip_ray.cascade import prompts as cascade_prompts
from salip_ray.cascade.cleaning import filled, without_small_parts
from salip_ray.cascade.prompts import Prompt, innermost, jittered, prompts_for
from salip_ray.cascade.refiner import SamRefiner, refine
from salip_ray.config import RefineConfig
from salip_ray.schema import Candidate

SIZES = {"working_size": (90, 128), "original_size": (90, 128)}
BOX = (20.0, 18.0, 80.0, 70.0)


def disc(number, row, column, radius):
    y, x = np.mgrid[:90, :128]
    mask = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    rows, columns = np.nonzero(mask)
    box = tuple(float(v) for v in (columns.min(), rows.min(), columns.max(), rows.max()))
    return Candidate(number, mask, int(mask.sum()), box, 0.9, 0.9, (0, 0), box)


@pytest.fixture
def predictor(sam, picture):
    predictor = SamPredictor(sam)
    predictor.set_image(picture(90, 128))
    return predictor


@pytest.fixture
def refined(sam, configure, picture):
    """``refined(prompts, **options)`` on the picture the predictor has."""

    def run(prompts, sam=sam, image=None, **options):
        config = configure(refine=options)
        refiner = SamRefiner(sam, config)
        image = picture(90, 128) if image is None else image
        return refine(refiner, refiner.encode(image), prompts, config.refine, **SIZES)

    return run


def test_without_an_option_it_is_the_plain_refiner(sam, configure, picture, refined):
    boxes = (BOX, (40.5, 30.0, 100.0, 88.25))
    refiner = SamRefiner(sam, configure())
    plain = refiner(refiner.encode(picture(90, 128)), boxes=boxes, **SIZES)
    result = refined([Prompt(box) for box in boxes])
    np.testing.assert_array_equal(result.masks, plain.masks)
    np.testing.assert_array_equal(result.predicted_iou, plain.predicted_iou)


def test_points_are_those_of_the_official_predictor(predictor, refined):
    prompt = Prompt(BOX, inside=((50.0, 40.0),), outside=((100.0, 60.0), (5.0, 5.0)))
    result = refined([prompt], centre_point=True, negative_points=True)
    masks, ious, _ = predictor.predict(
        point_coords=np.array([(50.0, 40.0), (100.0, 60.0), (5.0, 5.0)]),
        point_labels=np.array([1, 0, 0]),
        box=np.array(BOX),
        multimask_output=False,
    )
    np.testing.assert_array_equal(result.masks, masks)
    np.testing.assert_allclose(result.predicted_iou, ious, rtol=1e-5)


def test_feedback_is_the_official_predictors_mask_input(bundled_sam, phantom, configure):
    """On trained weights: the decoder of the small SAM does not look at a mask prompt."""
    size = phantom.shape[:2]
    box = (20.0, 30.0, 110.0, 180.0)
    config = configure(refine={"mask_feedback": 2})
    refiner = SamRefiner(bundled_sam, config)
    sizes = {"working_size": size, "original_size": size}
    result = refine(refiner, refiner.encode(phantom), [Prompt(box)], config.refine, **sizes)
    predictor = SamPredictor(bundled_sam)
    predictor.set_image(phantom)
    logits, answers = None, []
    for _ in range(3):
        masks, _, logits = predictor.predict(
            box=np.array(box), mask_input=logits, multimask_output=False
        )
        answers.append(masks)
    np.testing.assert_array_equal(result.masks, answers[-1])
    assert (answers[0] != answers[-1]).any()


def test_jitter_averages_the_logits_of_boxes_that_do_not_change(predictor, refined):
    result = refined([Prompt(BOX)], box_jitter=3, jitter_share=0.2)
    again = refined([Prompt((0.0, 0.0, 9.0, 9.0)), Prompt(BOX)], box_jitter=3, jitter_share=0.2)
    np.testing.assert_array_equal(result.masks[0], again.masks[1])
    boxes = jittered(BOX, (90, 128), 3, 0.2)
    np.testing.assert_array_equal(boxes[0], BOX)
    moved = np.abs(boxes[1:] - BOX)
    assert (moved > 0).all()
    assert (moved[:, ::2] <= 0.2 * 61).all()
    assert (moved[:, 1::2] <= 0.2 * 53).all()
    answers = [predictor.predict(box=b, multimask_output=False, return_logits=True) for b in boxes]
    ious = [iou for _, iou, _ in answers]
    np.testing.assert_allclose(result.predicted_iou, np.mean(ious), rtol=1e-5)
    # Upscaling is linear, so the mean may be taken before or after it, but for rounding.
    expected = np.mean([logits for logits, _, _ in answers], axis=0) > 0
    assert (result.masks != expected).mean() < 1e-3


def test_a_jittered_box_stays_within_the_image():
    boxes = jittered((0.0, 0.0, 127.0, 89.0), (90, 128), 20, 0.5)
    assert boxes.min() >= 0
    assert (boxes.max(axis=0) <= (127, 89, 127, 89)).all()


def test_other_candidates_are_negative_where_they_are_not_ones_own():
    own, twin, heart = disc(3, 40, 30, 20), disc(5, 40, 45, 20), disc(9, 60, 100, 12)
    config = RefineConfig(centre_point=True, negative_points=True)
    first, second = prompts_for([own, twin], [heart], config)
    assert first.box == own.box
    assert first.inside == ((30.0, 40.0),)
    assert len(first.outside) == len(second.outside) == 2
    assert first.outside[1] == (100.0, 60.0)
    x, y = (int(value) for value in first.outside[0])
    assert twin.mask[y, x]
    assert not own.mask[y, x]
    # A candidate that lies within another is nothing that could be left out of it.
    (alone,) = prompts_for([own], [disc(7, 40, 30, 5)], config)
    assert alone.outside == ()
    assert prompts_for([own], [heart], RefineConfig()) == (Prompt(own.box),)


def test_hundreds_of_objects_need_the_point_of_each_only_once(monkeypatch):
    rng = np.random.default_rng(0)
    some = [disc(n, *rng.integers(10, 80, 2), int(rng.integers(2, 9))) for n in range(24)]
    own, others = (
        some[:16],
        [*some[16:], some[3], replace(some[0], id=99, mask=np.zeros_like(some[0].mask))],
    )
    config = RefineConfig(negative_points=True)
    expected = []
    for one in own:
        foreign = [each.mask & ~one.mask for each in (*own, *others) if each.id != one.id]
        expected.append(tuple(innermost(mask) for mask in foreign if mask.any()))
    pairs = sum((a.mask & b.mask).any() for a in own for b in (*own, *others) if a.id != b.id)
    calls = []
    monkeypatch.setattr(
        cascade_prompts, "innermost", lambda mask: calls.append(0) or innermost(mask)
    )
    assert [prompt.outside for prompt in prompts_for(own, others, config)] == expected
    assert len(calls) <= len(own) + len(others) + pairs < sum(map(len, expected))


def test_innermost_is_away_from_outline_and_border():
    mask = np.zeros((30, 40), dtype=bool)
    mask[:, 30:] = True
    x, y = innermost(mask)
    assert (34 <= x <= 35, 4 <= y <= 25) == (True, True)


def test_holes_are_filled_and_parts_removed_by_their_share_of_the_largest():
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:25, 5:25] = True  # 400 px
    mask[10:14, 10:14] = False
    mask[30:34, 40:50] = True  # 40 px
    mask[0, 59] = True
    whole = filled(mask)
    assert whole[5:25, 5:25].all()
    assert whole.sum() == 400 + 40 + 1
    assert without_small_parts(whole, 0.1).sum() == 440
    assert without_small_parts(whole, 0.11).sum() == 400
    assert not without_small_parts(np.zeros_like(mask), 0.5).any()
    assert not filled(np.zeros_like(mask)).any()


def test_tidying_is_for_the_cascade_only(refined):
    plain = refined([Prompt(BOX)])
    tidy = refined([Prompt(BOX)], fill_holes=True, min_part=1.0)
    assert plain.masks.any()
    expected = without_small_parts(filled(plain.masks[0]), 1.0)
    np.testing.assert_array_equal(tidy.masks[0], expected)
