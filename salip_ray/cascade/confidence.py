"""How good a label is likely to be, from what the cascade knows without a reference.

Three figures that SAM's own behaviour gives: the IoU it predicts for the refined mask, that mask's
stability, and its agreement with the proposal it was refined from. A logistic model turns them into
an estimate of Dice between 0 and 1. Its few numbers are in ``confidence.json``; they were fitted on
phantoms of the ``tune`` bank with the bundled models (``benchmarks/confidence.py`` does so, and
measures it elsewhere). With another SAM the order of labels still means something, the value less.

CLIP's score and margin, and its agreement over the five visual prompts, are not part of it: on
those phantoms they added nothing to the rank correlation with Dice.
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
# No feature may speak against a label, or say nothing: with a SAM that errs seldom, few labels are
# left to tell what disagreement with the proposal means, and chance would.
_LEAST_WEIGHT = 0.05


@dataclass(frozen=True)
class Calibration:
    """A logistic model of Dice over :data:`FEATURES`.

    A feature is cut to the range ``low`` to ``high`` seen in the fit, for nothing is known beyond
    it, then standardised by ``centre`` and ``scale``.
    """

    intercept: float
    weights: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, predicted_iou: float, stability_score: float, agreement: float) -> float:
        """The expected Dice, 0 to 1. A NaN counts as the worst value that the fit saw."""
        total = self.intercept
        for value, weight, centre, scale, low, high in zip(
            (predicted_iou, stability_score, agreement),
            *(self.weights, self.centre, self.scale, self.low, self.high),
            strict=True,
        ):
            known = low if math.isnan(value) else min(max(value, low), high)
            total += weight * (known - centre) / scale
        return 1 / (1 + math.exp(-total))

    def to_json(self, about: dict[str, Any]) -> str:
        """The model as JSON text, with what is to be known about its fit."""
        data = {"features": FEATURES, **asdict(self), "about": about}
        return json.dumps(data, indent=1) + "\n"


def fit(features: npt.NDArray[np.float64], dice: Sequence[float]) -> Calibration:
    """Fit the model to labels whose Dice is known; it rises with each feature.

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
    """The model that ships with the package."""
    data = json.loads(_FILE.read_text(encoding="utf-8"))
    fields = {name: data[name] for name in ("weights", "centre", "scale", "low", "high")}
    return Calibration(data["intercept"], **{name: tuple(v) for name, v in fields.items()})
