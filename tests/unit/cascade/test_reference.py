"""Reference masks as classes and boxes."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.cascade.geometry import class_references, reference_boxes
from salip_ray.config import TaskConfig


def classes(*labels):
    return TaskConfig(name="t", prompts=dict.fromkeys(labels, ("text",))).classes


def test_with_one_class_every_value_above_0_is_it():
    reference = np.array([[0, 1, 255], [7, 0, 0]], dtype=np.int32)
    masks = class_references(reference, classes("lungs"))
    assert list(masks) == ["lungs"]
    np.testing.assert_array_equal(masks["lungs"], reference > 0)


def test_with_several_classes_the_values_are_class_ids():
    reference = np.array([[0, 1, 2], [2, 9, 0]], dtype=np.int32)
    masks = class_references(reference, classes("heart", "lung", "spine"))
    np.testing.assert_array_equal(masks["heart"], [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(masks["lung"], [[0, 0, 1], [1, 0, 0]])
    assert not masks["spine"].any()


def test_a_box_per_connected_part_inclusive_of_its_last_pixel():
    mask = np.zeros((100, 100), dtype=bool)
    mask[50:60, 10:30] = True
    mask[5:20, 80:100] = True
    assert reference_boxes(mask) == [(80, 5, 99, 19), (10, 50, 29, 59)]


@pytest.mark.parametrize(("pixels", "boxes"), [(49, 0), (50, 1), (51, 1)])
def test_parts_below_half_a_percent_have_no_box(pixels, boxes):
    mask = np.zeros((100, 100), dtype=bool)
    mask[3, :pixels] = True
    assert len(reference_boxes(mask)) == boxes


def test_parts_that_touch_at_a_corner_are_one():
    mask = np.zeros((20, 20), dtype=bool)
    mask[0:5, 0:5] = mask[5:10, 5:10] = True
    assert reference_boxes(mask) == [(0, 0, 9, 9)]


def test_an_empty_reference_has_no_box():
    assert reference_boxes(np.zeros((20, 20), dtype=bool)) == []
