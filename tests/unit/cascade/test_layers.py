"""With task.layered, a pixel of several classes belongs to the last of them alone."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.layers import in_layers
from salip_ray.config import load_config
from salip_ray.errors import ConfigError
from salip_ray.output.masks import label_map
from salip_ray.schema import ClassMask, Instance, ProposedMask

TASK = {"prompts": {"lung": ["a lobe"], "heart": ["a lobe"]}, "top_k": {"lung": 2}}


def rows(*numbers: int) -> np.ndarray:
    mask = np.zeros((6, 4), dtype=bool)
    mask[list(numbers)] = True
    return mask


def test_later_classes_take_the_pixels_of_all_earlier_ones():
    masks = [
        ClassMask("cascade", "head", 1, rows(0, 1, 2, 3), confidence=0.9),
        ClassMask("cascade", "eye", 3, rows(3, 4)),
        ClassMask("cascade", "brain", 2, rows(1, 2, 3, 4)),
    ]
    head, eye, brain = in_layers(masks)
    np.testing.assert_array_equal(head.mask, rows(0))
    np.testing.assert_array_equal(eye.mask, rows(3, 4))
    np.testing.assert_array_equal(brain.mask, rows(1, 2))
    assert head.confidence == 0.9


def test_a_mask_below_another_is_left_out():
    masks = [ClassMask("cascade", "a", 1, rows(2)), ClassMask("cascade", "b", 2, rows(1, 2))]
    assert [mask.label for mask in in_layers(masks)] == ["b"]


def test_instances_and_candidates_are_cut():
    parts = (Instance(rows(0, 1)), Instance(rows(2)), Instance(rows(4, 5)))
    lungs = ClassMask(
        "cascade",
        "lungs",
        1,
        rows(0, 1, 2, 4, 5),
        proposed=ProposedMask(rows(0, 1, 2), 0.8),
        instances=parts,
    )
    heart = ClassMask("cascade", "heart", 2, rows(1, 2))
    cut, _ = in_layers([lungs, heart])
    assert cut.proposed.agreement == 0.8
    np.testing.assert_array_equal(cut.proposed.mask, rows(0))
    np.testing.assert_array_equal([part.mask for part in cut.instances], [rows(0), rows(4, 5)])
    rest = ClassMask("cascade", "heart", 2, rows(1, 2, 4, 5))
    assert in_layers([lungs, rest])[0].instances == ()  # one object is left


def test_layered_masks_are_disjoint_and_baselines_without_references_are_not_cut(
    sam, clip, configure, picture
):
    image = picture(90, 128)
    heart = np.zeros((90, 128), dtype=bool)
    heart[30:60, 40:80] = True
    modes = {"modes": ["cascade", "unprompted", "gt_sam"]}
    lung = np.zeros((90, 128), dtype=bool)
    lung[20:80, 30:70] = True
    given = {"references": {"lung": lung, "heart": heart}}
    plain = Cascade(configure(task=TASK, run=modes), sam=sam, clip=clip)(image, **given)
    layered = {**TASK, "layered": True}
    result = Cascade(configure(task=layered, run=modes), sam=sam, clip=clip)(image, **given)
    whole = {(mask.method, mask.label): mask.mask for mask in plain.masks}
    cut = {(mask.method, mask.label): mask.mask for mask in result.masks}
    for method in ("cascade", "gt_sam"):
        below, above = whole[method, "lung"], whole[method, "heart"]
        assert (below & above).any()  # both classes have the same first candidate
        np.testing.assert_array_equal(cut[method, "heart"], above)
        np.testing.assert_array_equal(cut[method, "lung"], below & ~above)
    for name in whole.keys() - {(m, c) for m in ("cascade", "gt_sam") for c in TASK["prompts"]}:
        np.testing.assert_array_equal(cut[name], whole[name])
    # The label map needs no scores to decide: the masks are its classes.
    labels = label_map(result.masks, 90, 128)
    np.testing.assert_array_equal(labels == 1, cut["cascade", "lung"])
    np.testing.assert_array_equal(labels == 2, cut["cascade", "heart"])


def test_a_class_whose_pixels_are_all_taken_is_empty_with_the_reason(sam, clip, configure, picture):
    same = {"prompts": {"one": ["a lobe"], "two": ["a lobe"]}, "layered": True}
    result = Cascade(configure(task=same), sam=sam, clip=clip)(picture(90, 128))
    assert [(o.label, o.outcome) for o in result.outcomes] == [
        ("one", "empty"),
        ("two", "labelled"),
    ]
    assert result.outcomes[0].reason == "later classes have all of its pixels (task.layered)"


def test_layers_exclude_consistent_volumes_and_are_not_in_older_recipes():
    with pytest.raises(ConfigError, match="turn one of them off"):
        load_config("lungs", overrides=["task.layered=true", "volumes.consistent=true"])
    assert "layered" not in load_config("lungs").recipe()["task"]
    on = load_config("lungs", overrides=["task.layered=true"])
    assert on.recipe()["task"]["layered"] is True
