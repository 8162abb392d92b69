"""Confidence intervals of means, by a seeded bootstrap over images or volumes."""

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


def mean_interval(
    values: Sequence[float], groups: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean, at :data:`LEVEL`.

    NaN values are left out, as they are of the mean. Both ends are NaN for fewer than two values,
    or groups: one image or volume says nothing about others. The same values give the same
    interval.

    Args:
        values: one of each image.
        groups: the volume of each, or what else is alike within: they are resampled whole, for the
            slices of a volume say much about each other and little about other volumes.
    """
    totals: dict[Hashable, list[float]] = {}
    for number, value in enumerate(values):
        if not math.isnan(value):
            totals.setdefault(number if groups is None else groups[number], []).append(value)
    if len(totals) < 2:
        return math.nan, math.nan
    sums = np.array([math.fsum(found) for found in totals.values()])
    counts = np.array([len(found) for found in totals.values()])
    found = stats.bootstrap(
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
    return float(found.low), float(found.high)


def _ratio(sums: Any, counts: Any, axis: int) -> Any:
    return sums.sum(axis=axis) / counts.sum(axis=axis)
