"""Small regions, against the official function."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from segment_anything.utils.amg import remove_small_regions

from salip_ray.cascade.candidates import without_small_regions

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))


def assert_same(mask, area, *, holes):
    ours, changed = without_small_regions(mask, area, holes=holes)
    theirs, officially = remove_small_regions(mask, area, "holes" if holes else "islands")
    np.testing.assert_array_equal(ours, theirs)
    assert changed == officially


@given(arrays.arrays(bool, SHAPES), st.integers(1, 120), st.booleans())
def test_noise(mask, area, holes):
    assert_same(mask, area, holes=holes)


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.booleans())
def test_blobs_somewhere_in_the_image(seed, area, holes):
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 90, 2)
    canvas = np.zeros((height, width), np.uint8)
    for value in random.integers(0, 2, 8):
        centre = (int(random.integers(0, width)), int(random.integers(0, height)))
        axes = (int(random.integers(0, 20)), int(random.integers(0, 20)))
        cv2.ellipse(canvas, centre, axes, float(random.uniform(0, 180)), 0, 360, int(value), -1)
    assert_same(canvas.astype(bool), area, holes=holes)


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("strip", [1, 2, 3, 5])
def test_strip_next_to_mask_is_filled_by_its_whole_area(side, strip):
    mask = np.ones((20, 30), bool)
    offset = {"top": np.s_[:strip], "bottom": np.s_[-strip:]}.get(side)
    mask[offset if offset else np.s_[:, :strip] if side == "left" else np.s_[:, -strip:]] = False
    left_out = int((~mask).sum())
    for area in (left_out, left_out + 1):
        assert_same(mask, area, holes=True)


@pytest.mark.parametrize("at", [(3, 3), (4, 5), (6, 2), (7, 8)])
def test_of_islands_of_one_size_the_same_stays(at):
    mask = np.zeros((20, 20), bool)
    row, column = at
    mask[row, column] = mask[row + 3, column - 2] = mask[row + 1, column + 4] = True
    assert_same(mask, 50, holes=False)
