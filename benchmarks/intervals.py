"""Means over images with their 95 % bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_RESAMPLINGS, _SEED = 2000, 0


@dataclass
class Column:
    """One figure of each of many images."""

    values: list[float] = field(default_factory=list)

    def summary(self, against: Column | None = None) -> dict[str, Any]:
        """Mean with its 95 % percentile interval, and the same of the paired difference."""
        values = np.array(self.values)
        results: dict[str, Any] = {"mean": rounded(values.mean()), "n": len(values)}
        results["interval"] = interval(values)
        if against is not None:
            change = values - np.array(against.values)
            results["change"] = rounded(change.mean())
            results["change_interval"] = interval(change)
        return results


def interval(values: npt.NDArray[np.float64]) -> list[float]:
    """Return the 95 % percentile interval of the mean, by resampling images with replacement."""
    rng = np.random.default_rng(_SEED)
    picks = rng.integers(len(values), size=(_RESAMPLINGS, len(values)))
    return [rounded(bound) for bound in np.percentile(values[picks].mean(axis=1), [2.5, 97.5])]


def rounded(value: float) -> float:
    """Four places: more than any of these means is sure of."""
    return round(float(value), 4)
