"""Means and their confidence intervals, by a seeded bootstrap over images or volumes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000
SEED = 20_240_406
_LARGEST_BATCH = 4_000_000  # resampled values in memory at once


def nan_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def mean_interval(
    values: Sequence[float], groups: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean, at :data:`LEVEL`.

    NaN values are left out, as in the mean. Both ends are NaN for fewer than two values, or groups:
    one image or volume says nothing about others. The same values give the same interval.

    Args:
        values: one per image.
        groups: the group of each value, such as its volume. Groups are resampled as a whole,
            because the slices of a volume resemble each other more than those of other volumes.
    """
    known = [number for number, value in enumerate(values) if not math.isnan(value)]
    return ratio_interval(
        [values[number] for number in known],
        [1] * len(known),
        known if groups is None else [groups[number] for number in known],
    )


def ratio_interval(
    parts: Sequence[float], totals: Sequence[float], groups: Sequence[Hashable]
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of sum(parts) / sum(totals), at :data:`LEVEL`.

    Both ends are NaN for fewer than two groups.

    Args:
        parts: one per image.
        totals: one per image; images of which it is 0 are left out.
        groups: the group of each image.
    """
    by_group: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        if totals[number]:
            by_group.setdefault(group, []).append(number)
    if len(by_group) < 2:
        return math.nan, math.nan
    sums, counts = (
        np.array([math.fsum(values[n] for n in numbers) for numbers in by_group.values()])
        for values in (parts, totals)
    )
    interval = stats.bootstrap(
        (sums, counts),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        batch=max(1, _LARGEST_BATCH // len(sums)),
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _ratio(sums: Any, counts: Any, axis: int) -> Any:
    return sums.sum(axis=axis) / counts.sum(axis=axis)
