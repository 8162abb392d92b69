"""The working image, and masks and boxes between it and the original one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from segment_anything.utils.transforms import ResizeLongestSide

from salip_ray.cascade.geometry import (
    box_to_working,
    contour_boxes,
    make_working,
    to_original,
    to_working,
    working_size,
)
from salip_ray.config import ImageConfig


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((100, 200), 50, (25, 50)),
        ((200, 100), 400, (400, 200)),
        ((333, 512), 256, (167, 256)),
        ((2, 5000), 256, (1, 256)),
    ],
)
def test_working_size_has_the_aspect_of_the_image(size, long_side, expected):
    assert working_size(*size, long_side) == expected


@pytest.mark.parametrize("size", [(1024, 681), (97, 331), (2000, 1999)])
def test_working_size_is_sams_own(size):
    assert working_size(*size, 256) == ResizeLongestSide.get_preprocess_shape(*size, 256)


def test_to_working_resizes_as_sam_does(picture):
    image = picture(150, 210)
    np.testing.assert_array_equal(to_working(image, 64), ResizeLongestSide(64).apply_image(image))


def test_image_of_the_working_size_is_not_resized(picture):
    image = picture(90, 128)
    assert to_working(image, 128) is image


def test_to_original_is_nearest_neighbour():
    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(
        to_original(mask, (4, 6)), np.kron(mask, np.ones((2, 3), dtype=bool))
    )
    np.testing.assert_array_equal(to_original(np.kron(mask, np.ones((3, 3))) > 0, (2, 2)), mask)
    assert to_original(mask, (4, 6)).dtype == np.bool_


def test_boxes_scale_with_the_pixels_they_cover():
    assert box_to_working((0, 0, 199, 99), (100, 200), (50, 100)) == (0, 0, 99, 49)
    assert box_to_working((10, 20, 19, 39), (100, 200), (200, 400)) == (20, 40, 39, 79)
    assert box_to_working((7, 8, 9, 10), (100, 200), (100, 200)) == (7, 8, 9, 10)


def test_trap_7_a_box_thinner_than_a_working_pixel_stays_a_box():
    x0, y0, x1, y1 = box_to_working((101, 10, 101, 90), (1000, 1000), (100, 100))
    assert x1 >= x0
    assert y1 > y0


def test_make_working_follows_the_published_loader_by_option(picture):
    image = picture(150, 210)
    published = ImageConfig(long_side=64, aspect="square", resample="bilinear", channels="bgr")
    expected = cv2.resize(image[..., ::-1], (64, 64))
    np.testing.assert_array_equal(make_working(image, published), expected)
    plain = ImageConfig(long_side=64)
    np.testing.assert_array_equal(make_working(image, plain), to_working(image, 64))


def test_contour_boxes_are_those_of_the_two_leftmost_contours():
    mask = np.zeros((256, 256), dtype=bool)
    mask[10:30, 200:220] = mask[50:90, 20:40] = mask[100:120, 100:130] = True
    mask[200, 5] = True  # a contour of no area
    assert contour_boxes(mask, (256, 256)) == [(20, 50, 39, 89), (100, 100, 129, 119)]
