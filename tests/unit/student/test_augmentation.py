"""Random variants of training images."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.student.augmentation import augmented, vary_appearance
from salip_ray.student.targets import IGNORED


def picture_of_a_square() -> tuple[np.ndarray, np.ndarray]:
    picture = np.full((64, 64, 3), 40, np.uint8)
    target = np.zeros((64, 64), np.int16)
    picture[20:44, 10:30], target[20:44, 10:30] = 220, 1
    return picture, target


def test_image_and_target_move_together():
    """The edge of the square stays where the target says, whatever the light."""
    picture, target = picture_of_a_square()
    contrasts = []
    for seed in range(24):
        moved, where = augmented(picture, target, np.random.default_rng(seed))
        bright = moved.mean(axis=2)
        contrasts.append(abs(bright[where == 1].mean() - bright[where == 0].mean()))
        assert np.argwhere(where == 1)[:, 1].mean() < 36  # never mirrored
    assert np.median(contrasts) > 60


def test_pixels_from_outside_are_ignored():
    picture, target = picture_of_a_square()
    ignored = [
        (augmented(picture, target, np.random.default_rng(seed))[1] == IGNORED).mean()
        for seed in range(8)
    ]
    assert 0 < max(ignored) < 0.6


@pytest.mark.parametrize("seed", range(6))
def test_grey_and_colour_images_change_alike(seed: int):
    grey = np.random.default_rng(9).random((40, 56), dtype=np.float32)
    colour = np.repeat(grey[..., None], 3, axis=2)
    expected = vary_appearance(grey, np.random.default_rng(seed))
    varied = vary_appearance(colour, np.random.default_rng(seed))
    assert varied.dtype == np.float32
    assert not np.array_equal(expected, grey)
    for channel in range(3):
        np.testing.assert_allclose(varied[..., channel], expected, atol=1e-5)
