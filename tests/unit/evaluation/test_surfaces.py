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


def test_identical_masks_have_distance_zero():
    assert hd95(square(5, 5), square(5, 5)) == 0.0
    assert nsd(square(5, 5), square(5, 5)) == 1.0


def test_distance_of_a_shifted_mask_is_the_shift():
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


def test_empty_masks_have_no_distance():
    assert math.isnan(hd95(NONE, square(5, 5)))
    assert math.isnan(hd95(NONE, NONE))
    assert nsd(square(5, 5), NONE) == 0.0
    assert math.isnan(nsd(NONE, NONE))


#: HD95, NSD at 2 pixels and NSD at 1 pixel, computed by MONAI 1.6.1 on :func:`two_ellipses`.
OF_MONAI = {
    0: (25.612497329711914, 0.0, 0.0),
    1: (16.86263084411621, 0.3222748935222626, 0.22748814523220062),
    2: (15.0, 0.2074688822031021, 0.12033195048570633),
    3: (13.0, 0.2757575809955597, 0.17878787219524384),
    4: (9.563806533813477, 0.27272728085517883, 0.13636364042758942),
    5: (14.522473335266113, 0.42105263471603394, 0.2966507077217102),
}


def two_ellipses(seed):
    """Two overlapping ellipses on 64 x 80 pixels, the first one with holes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :80]

    def ellipse(row, column, height, width):
        return ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1

    row, column = rng.uniform(10, 54), rng.uniform(10, 70)
    radii = rng.uniform(5, 25, 4)
    one = ellipse(row, column, radii[0], radii[1]) & (rng.random((64, 80)) < 0.95)
    return one, ellipse(row + rng.uniform(-8, 8), column + rng.uniform(-8, 8), radii[2], radii[3])


@pytest.mark.parametrize("seed", OF_MONAI)
def test_figures_equal_those_of_monai(seed):
    one, other = two_ellipses(seed)
    figures = (hd95(one, other), nsd(one, other), nsd(one, other, 1.0))
    assert figures == pytest.approx(OF_MONAI[seed], rel=1e-6, abs=1e-6)  # its float32


def test_an_organ_cut_by_the_border_has_an_outline_there():
    whole = np.ones((20, 20), np.bool_)
    smaller = np.zeros((20, 20), np.bool_)
    smaller[4:16, 4:16] = True
    assert hd95(whole, smaller) > 4


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="the reference 40 x 59"):
        hd95(square(5, 5), square(5, 5)[:, :-1])
