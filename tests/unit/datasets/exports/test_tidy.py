"""Tidying in 3-D."""

from __future__ import annotations

import numpy as np

from salip_ray.datasets.exports.tidy import Tidy


def volume():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:6, 1:6, 1:6] = 1
    labels[3, 3, 3] = 0  # a hole
    labels[4, 4, 4] = 2  # another class within: no hole
    labels[9:11, 9:11, 9:10] = 1  # a speck on one slice
    return labels


def test_no_rules_change_nothing():
    np.testing.assert_array_equal(Tidy()(volume(), 2), volume())


def test_the_largest_component_of_each_class():
    tidied = Tidy(largest=True)(volume(), 2)
    assert not tidied[8:].any()
    assert (tidied[4, 4, 4], tidied[3, 3, 3]) == (2, 0)


def test_holes_are_filled_but_no_class_is_overwritten():
    tidied = Tidy(fill_holes=True)(volume(), 2)
    assert (tidied[3, 3, 3], tidied[4, 4, 4]) == (1, 2)


def test_components_on_few_slices_are_dropped_along_the_axis_that_was_cut():
    assert not Tidy(min_slices=2)(volume(), 2)[8:].any()
    assert Tidy(min_slices=2)(volume(), 0)[8:].any()


def test_voxels_to_ignore_are_no_class():
    labels = volume()
    labels[0, 0, 0] = 255
    tidied = Tidy(largest=True, min_slices=2)(labels, 2, ignore_index=255)
    assert tidied[0, 0, 0] == 255
