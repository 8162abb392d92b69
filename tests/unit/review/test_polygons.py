"""Polygons hold every pixel of a mask: components, holes, and islands in holes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salip_ray.review.tools.polygons import filled, outlines


def drawn(mask):
    after = np.zeros_like(mask)
    for points in outlines(mask):
        assert len(points) >= 3
        after |= filled(points, mask.shape)
    return after


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0.0, 1.0))
def test_a_random_mask_survives(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    np.testing.assert_array_equal(drawn(mask), mask)


def test_rings_in_rings_survive_as_one_polygon_each():
    y, x = np.mgrid[:99, :120]
    distance = np.hypot(y - 50, x - 60)
    mask = (distance < 45) & ~((distance > 12) & (distance < 25))
    mask[50, 40] = True
    np.testing.assert_array_equal(drawn(mask), mask)
    assert len(outlines(mask)) == 3
    assert sum(map(len, outlines(mask))) < 400


@pytest.mark.parametrize("points", [[], [[1]], [[1, 2, 3]], [[1, float("nan")]], [["a", 1]]])
def test_damaged_vertices_are_refused(points):
    with pytest.raises(ValueError, match=r"vertex|float"):
        filled(points, (5, 5))


def test_a_polygon_far_outside_of_the_image_covers_it():
    far = 1e12
    assert filled([[-far, -far], [far, -far], [far, far], [-far, far]], (4, 6)).all()
