"""Estimate the Dice of a label without a reference.

A logistic model estimates Dice, 0 to 1, from three figures: the IoU that SAM predicts for the
refined mask, the stability of that mask, and its Dice with the candidates it was refined from. The
parameters are in ``confidence.json``. ``benchmarks/confidence.py`` fitted them on phantoms of the
``tune`` bank with the bundled models. With another SAM, use the estimate to rank labels and not as
a Dice.

CLIP's score and margin, and its agreement over the five visual prompts, are not used: on those
phantoms they did not improve the rank correlation with Dice.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = ("predicted_iou", "stability_score", "agreement")
_FILE = Path(__file__).with_name("confidence.json")
_RIDGE = 1e-3
# Every weight is positive: if SAM rarely errs, too few bad labels remain to estimate a weight.
_LEAST_WEIGHT = 0.05


@dataclass(frozen=True)
class Calibration:
    """A logistic model of Dice over :data:`FEATURES`.

    A feature is clipped to ``low`` and ``high``, its range in the fit, and standardised by
    ``centre`` and ``scale``.
    """

    intercept: float
    weights: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, predicted_iou: float, stability_score: float, agreement: float) -> float:
        """Return the expected Dice, 0 to 1. A NaN counts as the lowest value of the fit."""
        total = self.intercept
        for value, weight, centre, scale, low, high in zip(
            (predicted_iou, stability_score, agreement),
            *(self.weights, self.centre, self.scale, self.low, self.high),
            strict=True,
        ):
            clipped = low if math.isnan(value) else min(max(value, low), high)
            total += weight * (clipped - centre) / scale
        return 1 / (1 + math.exp(-total))

    def to_json(self, about: dict[str, Any]) -> str:
        """Return the model as JSON text, with a description of its fit."""
        data = {"features": FEATURES, **asdict(self), "about": about}
        return json.dumps(data, indent=1) + "\n"


def fit(features: npt.NDArray[np.float64], dice: Sequence[float]) -> Calibration:
    """Fit the model to labels of known Dice; the estimate rises with each feature.

    Args:
        features: [n, 3], the columns of :data:`FEATURES`, finite.
        dice: n figures between 0 and 1.
    """
    from scipy.optimize import minimize

    target = np.asarray(dice, np.float64)
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standard = (features - centre) / scale

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        logits = parameters[0] + standard @ parameters[1:]
        # Cross-entropy with a soft target: log(1 + e^z) - y z, without overflow.
        entropy = np.logaddexp(0, logits) - target * logits
        return float(entropy.mean() + _RIDGE * np.sum(parameters[1:] ** 2))

    bounds = [(None, None), *[(_LEAST_WEIGHT, None)] * features.shape[1]]
    best = minimize(loss, np.zeros(features.shape[1] + 1), bounds=bounds).x.tolist()
    return Calibration(
        intercept=best[0],
        weights=tuple(best[1:]),
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        low=tuple(features.min(axis=0).tolist()),
        high=tuple(features.max(axis=0).tolist()),
    )


@functools.cache
def calibration() -> Calibration:
    """Return the model that ships with the package."""
    data = json.loads(_FILE.read_text(encoding="utf-8"))
    fields = {name: data[name] for name in ("weights", "centre", "scale", "low", "high")}
    return Calibration(data["intercept"], **{name: tuple(v) for name, v in fields.items()})
