from __future__ import annotations

import numpy as np
import pytest

from salip_ray.models.bundled.phantoms import KINDS, make_phantom
from training.clip_candidates import (
    LEAST_PIXELS,
    NamedMask,
    box_of,
    candidate,
    judge,
    structure_masks,
)
from training.sentences import LABELS


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[top:bottom, left:right] = True
    return mask


LEFT, RIGHT = rectangle(20, 60, 80, 85), rectangle(20, 15, 80, 40)
HEART = rectangle(50, 40, 80, 62)
BODY = rectangle(5, 5, 100, 95)
CHEST = [
    NamedMask("left lung", LEFT),
    NamedMask("right lung", RIGHT),
    NamedMask("lungs", LEFT | RIGHT),
    NamedMask("heart", HEART),
    NamedMask("body outline", BODY),
]


def verdict_of(mask):
    [verdict] = judge([mask], CHEST, "chest_xray")
    return LABELS[verdict.label], verdict


def test_one_lung_has_the_best_grade():
    label, verdict = verdict_of(LEFT)
    assert label == "lungs"
    assert verdict.grade == 1.0
    assert verdict.share == 1.0


def test_both_lungs_in_one_mask_are_lungs_but_worth_less():
    label, verdict = verdict_of(LEFT | RIGHT)
    assert label == "lungs"
    assert 0.5 < verdict.grade < 0.8


@pytest.mark.parametrize(
    ("mask", "label"),
    [
        (rectangle(20, 60, 45, 85), "lung fragment"),
        (rectangle(70, 15, 80, 40), "lung fragment"),
        (LEFT | HEART | rectangle(80, 40, 95, 85), "lung union"),
        (HEART, "heart"),
        (BODY, "body outline"),
        (rectangle(0, 0, 4, 100), "background"),
        (rectangle(85, 10, 98, 20), "background"),
    ],
)
def test_each_mistake_has_a_separate_class(mask, label):
    results, verdict = verdict_of(mask)
    assert results == label
    assert verdict.grade < 0.75


def test_grade_falls_as_a_mask_gets_worse():
    grades = [verdict_of(rectangle(20, 60, bottom, 85))[1].grade for bottom in (80, 74, 66, 50, 30)]
    assert grades == sorted(grades, reverse=True)
    assert grades[0] > grades[-1] + 0.5


def test_a_mask_between_two_classes_is_shared():
    _, nearly = verdict_of(rectangle(20, 60, 66, 85))  # IoU .77
    assert 0.5 < nearly.share < 1.0
    assert {LABELS[nearly.label], LABELS[nearly.other]} == {"lungs", "lung fragment"}


def test_no_masks_give_no_verdicts():
    assert judge([], CHEST, "chest_xray") == []


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_masks_have_grades_from_low_to_best(kind):
    phantom = make_phantom(kind, 3, bank="tune")
    structures = [NamedMask(s.name, s.mask) for s in phantom.structures]

    def draw():
        rng = np.random.default_rng(5)
        return structure_masks(phantom.image[..., 0], structures, kind, 16, rng)

    masks = draw()
    assert 8 <= len(masks) <= 16
    assert all(mask.shape == phantom.image.shape[:2] and mask.dtype == bool for mask in masks)
    assert all(mask.sum() >= LEAST_PIXELS for mask in masks)
    grades = [verdict.grade for verdict in judge(masks, structures, kind)]
    assert max(grades) == 1.0  # the organ itself is among them
    assert min(grades) < 0.4
    assert all(np.array_equal(a, b) for a, b in zip(masks, draw(), strict=True))


def test_boxes_of_candidates_are_inclusive():
    mask = rectangle(10, 20, 13, 21)
    assert box_of(mask) == (20, 10, 20, 12)
    made = candidate(mask, 7)
    assert (made.id, made.area, made.box) == (7, 3, (20, 10, 20, 12))
