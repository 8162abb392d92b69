"""Bootstrap intervals: seeded, honest about NaN and about too few images."""

from __future__ import annotations

import math

import numpy as np

from salip_ray.evaluation.intervals import mean_interval


def test_interval_agrees_with_normal_theory():
    values = np.random.default_rng(1).normal(0.8, 0.1, 400).tolist()
    low, high = mean_interval(values)
    half = 1.96 * np.std(values) / math.sqrt(400)
    assert abs(low - (np.mean(values) - half)) < 0.15 * half
    assert abs(high - (np.mean(values) + half)) < 0.15 * half


def test_same_values_give_the_same_interval():
    assert mean_interval([0.1, 0.5, 0.9]) == mean_interval([0.1, 0.5, 0.9])


def test_nan_is_left_out():
    assert mean_interval([0.1, math.nan, 0.9]) == mean_interval([0.1, 0.9])


def test_interval_of_equal_values_has_no_width():
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_single_image_has_no_interval():
    assert all(math.isnan(end) for end in mean_interval([0.9]))


def test_slices_of_a_volume_are_resampled_together():
    volumes = [number // 10 for number in range(60)]
    values = [0.6 + 0.1 * (volume % 3) + 0.001 * n for n, volume in enumerate(volumes)]
    low, high = mean_interval(values)
    wide_low, wide_high = mean_interval(values, volumes)
    assert wide_low < low < high < wide_high
    assert mean_interval(values, list(range(60))) == (low, high)
    # What of a volume does not count leaves the others their weight.
    uneven = mean_interval([*values, math.nan], [*volumes, 99])
    assert uneven == (wide_low, wide_high)
    assert all(math.isnan(end) for end in mean_interval(values, ["one"] * 60))
