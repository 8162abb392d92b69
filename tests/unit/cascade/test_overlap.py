"""Candidates against a reference: the best that a retrieval could have picked."""

from __future__ import annotations

import math

import numpy as np

from salip_ray.cascade.geometry import closest, overlap, union_of
from salip_ray.schema import Candidate


def candidate(number, columns):
    mask = np.zeros((4, 8), np.bool_)
    mask[:, columns] = True
    return Candidate(
        id=number,
        mask=mask,
        area=int(mask.sum()),
        box=(0, 0, 7, 3),
        predicted_iou=0.9,
        stability_score=0.9,
        point=(0, 0),
        crop_box=(0, 0, 7, 3),
    )


LEFT, RIGHT = candidate(3, [0, 1]), candidate(1, [6, 7])
ALL, MIDDLE = candidate(0, range(8)), candidate(2, [3, 4])
BOTH = LEFT.mask | RIGHT.mask


def test_the_best_union_of_k():
    assert [c.id for c in closest([ALL, RIGHT, MIDDLE, LEFT], LEFT.mask, 2)] == [3]
    assert {c.id for c in closest([MIDDLE, RIGHT, LEFT], BOTH, 2)} == {1, 3}
    # Of equals the lower id; a third would only lower the Dice.
    assert [c.id for c in closest([MIDDLE, RIGHT, LEFT], BOTH, 3)] == [1, 3]


def test_empty_mask_has_no_closest_candidate():
    assert closest([LEFT], np.zeros((4, 8), np.bool_), 2) == []
    assert closest([], LEFT.mask, 2) == []


def test_union_on_the_original_pixels():
    assert union_of([LEFT, RIGHT], (8, 16)).sum() == 4 * BOTH.sum()
    assert not union_of([], (8, 16)).any()


def test_overlap_is_dice():
    assert overlap(LEFT.mask, BOTH) == 2 * 8 / (8 + 16)
    assert math.isnan(overlap(~ALL.mask, ~ALL.mask))
