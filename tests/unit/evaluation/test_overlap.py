"""Dice and IoU: their values, and the ways in which they are got wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salip_ray.evaluation import dice, iou
from salip_ray.schema import Mask


def row(*pixels: int) -> Mask:
    return np.array([pixels], np.bool_)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected_dice", "expected_iou"),
    [
        (row(1, 1, 0, 0), row(1, 1, 0, 0), 1.0, 1.0),
        (row(1, 1, 0, 0), row(0, 1, 1, 0), 0.5, 1 / 3),
        (row(1, 0, 0, 0), row(1, 1, 1, 0), 0.5, 1 / 3),
        (row(1, 1, 0, 0), row(0, 0, 1, 1), 0.0, 0.0),
        (row(0, 0, 0, 0), row(0, 0, 1, 1), 0.0, 0.0),
        (row(1, 1, 0, 0), row(0, 0, 0, 0), 0.0, 0.0),
    ],
)
def test_values(prediction, reference, expected_dice, expected_iou):
    assert dice(prediction, reference) == pytest.approx(expected_dice)
    assert iou(prediction, reference) == pytest.approx(expected_iou)


def test_overlap_of_two_empty_masks_is_nan():
    empty = row(0, 0, 0)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(iou(empty, empty))


@given(st.data())
def test_the_two_figures_agree_with_each_other(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
    a = data.draw(hnp.arrays(np.bool_, shape))
    b = data.draw(hnp.arrays(np.bool_, shape))
    overlap = iou(a, b)
    np.testing.assert_allclose(dice(a, b), 2 * overlap / (1 + overlap))
    np.testing.assert_equal(dice(a, b), dice(b, a))


@pytest.mark.parametrize("metric", [dice, iou])
@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (4, 5), (3, 4, 4)])
def test_shapes_that_would_broadcast_are_refused(metric, shape):
    with pytest.raises(ValueError, match=r"4 x 4|\[3, 4, 4\]"):
        metric(np.ones(shape, np.bool_), np.ones((4, 4), np.bool_))


@pytest.mark.parametrize("metric", [dice, iou])
def test_integer_masks_are_refused(metric):
    with pytest.raises(ValueError, match=r"reference must be a bool mask.*uint8"):
        metric(np.ones((2, 2), np.bool_), np.full((2, 2), 255, np.uint8))
