"""Confidence intervals of means, by a seeded bootstrap over images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000
SEED = 20_240_406
_LARGEST_BATCH = 4_000_000  # resampled values in memory at once


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean, at :data:`LEVEL`.

    NaN values are left out, as they are of the mean. Both ends are NaN for fewer than two values:
    one image says nothing about others. The same values give the same interval.
    """
    counted = np.asarray([value for value in values if not math.isnan(value)], np.float64)
    if len(counted) < 2:
        return math.nan, math.nan
    found = stats.bootstrap(
        (counted,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        batch=max(1, _LARGEST_BATCH // len(counted)),
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)
