"""Distances between outlines, on squares whose distances are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salip_ray.evaluation import hd95, nsd

NONE = np.zeros((40, 60), np.bool_)


def square(row, column, side=16):
    mask = NONE.copy()
    mask[row : row + side, column : column + side] = True
    return mask


def test_a_mask_is_no_distance_from_itself():
    assert hd95(square(5, 5), square(5, 5)) == 0.0
    assert nsd(square(5, 5), square(5, 5)) == 1.0


def test_a_shift_is_the_distance_it_was_shifted_by():
    assert hd95(square(5, 5), square(5, 12)) == 7.0
    assert nsd(square(5, 5), square(5, 6), tolerance=1.0) == 1.0
    # Top and bottom edges still lie on each other; the sides do not.
    assert 0.3 < nsd(square(5, 5), square(5, 12), tolerance=1.0) < 0.8


def test_the_position_in_the_image_does_not_matter():
    assert hd95(square(0, 0), square(0, 7)) == hd95(square(5, 5), square(5, 12))
    assert nsd(square(0, 0), square(0, 7)) == nsd(square(5, 5), square(5, 12))


def test_a_few_stray_pixels_do_not_move_the_95th_percentile():
    stray = square(5, 5)
    stray[38, 58] = True
    assert hd95(stray, square(5, 5)) == 0.0


def test_without_an_outline():
    assert math.isnan(hd95(NONE, square(5, 5)))
    assert math.isnan(hd95(NONE, NONE))
    assert nsd(square(5, 5), NONE) == 0.0
    assert math.isnan(nsd(NONE, NONE))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="the reference 40 x 59"):
        hd95(square(5, 5), square(5, 5)[:, :-1])
