"""Estimate the Dice of a label without a reference.

A logistic model estimates Dice, 0 to 1, from the IoU that SAM predicts for the refined mask, the
stability of that mask, and its Dice with the candidates it was refined from. It judges the outline
only. If CLIP's figures are known (``retrieve.scoring`` is ``softmax``, and the task names the signs
of the class), a second model also takes the presence of the class in the image and the evidence
for it in the retrieved candidates. It expects a Dice of 0 if the organ is not there.

The parameters are in ``confidence.json``. ``benchmarks/confidence.py`` fitted them on phantoms of
the ``tune`` bank with the bundled models. With another SAM or CLIP, use the estimate to rank labels
and not as a Dice.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from salip_ray.schema import ClipScores

FEATURES = ("predicted_iou", "stability_score", "agreement")
#: Those of the model that also tells whether the organ is there.
PRESENCE_FEATURES = (*FEATURES, "presence", "evidence")
ModelName = Literal["outline", "presence"]
_FILE = Path(__file__).with_name("confidence.json")
_RIDGE = 1e-3
# Every weight is positive: if SAM rarely errs, too few bad labels remain to estimate a weight.
_LEAST_WEIGHT = 0.05


@dataclass(frozen=True)
class Calibration:
    """A logistic model of Dice.

    A feature is clipped to ``low`` and ``high``, its range in the fit, and standardised by
    ``centre`` and ``scale``.
    """

    intercept: float
    weights: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, *features: float) -> float:
        """Return the expected Dice, 0 to 1. A NaN counts as the lowest value of the fit."""
        total = self.intercept
        for value, weight, centre, scale, low, high in zip(
            features, self.weights, self.centre, self.scale, self.low, self.high, strict=True
        ):
            clipped = low if math.isnan(value) else min(max(value, low), high)
            total += weight * (clipped - centre) / scale
        return 1 / (1 + math.exp(-total))


def expected_dice(
    predicted_iou: float, stability: float, agreement: float, clip: Sequence[ClipScores]
) -> float:
    """Return the expected Dice of a label, 0 to 1.

    Args:
        predicted_iou: SAM's, of the refined mask.
        stability: of the refined mask; may be NaN.
        agreement: Dice of the refined mask and the retrieved candidates.
        clip: the scores of the retrieved candidates.
    """
    outline = predicted_iou, stability, agreement
    presences = [scores.presence for scores in clip if scores.presence is not None]
    evidence = [scores.evidence for scores in clip if scores.evidence is not None]
    if not (presences and evidence):
        return calibration("outline")(*outline)
    return calibration("presence")(*outline, presences[0], sum(evidence) / len(evidence))


def fit(
    features: npt.NDArray[np.float64],
    dice: Sequence[float],
    weights: Sequence[float] | None = None,
) -> Calibration:
    """Fit a model to labels of known Dice; the estimate rises with each feature.

    Args:
        features: [n, d], finite.
        dice: n figures between 0 and 1.
        weights: how often each label counts; by default once.
    """
    from scipy.optimize import minimize

    target = np.asarray(dice, np.float64)
    share = np.ones(len(target)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standard = (features - centre) / scale

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        logits = parameters[0] + standard @ parameters[1:]
        # Cross-entropy with a soft target: log(1 + e^z) - y z, without overflow.
        entropy = np.logaddexp(0, logits) - target * logits
        return float(share @ entropy + _RIDGE * np.sum(parameters[1:] ** 2))

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


def to_json(models: Mapping[ModelName, Calibration], about: Mapping[str, Any]) -> str:
    """Return the models as JSON text, with a description of their fit."""
    names = {"outline": FEATURES, "presence": PRESENCE_FEATURES}
    data: dict[str, Any] = {
        name: {"features": names[name], **asdict(model)} for name, model in models.items()
    }
    return json.dumps({**data, "about": about}, indent=1) + "\n"


@functools.cache
def calibration(name: ModelName) -> Calibration:
    """Return a model that ships with the package."""
    data = json.loads(_FILE.read_text(encoding="utf-8"))[name]
    fields = {key: data[key] for key in ("weights", "centre", "scale", "low", "high")}
    return Calibration(data["intercept"], **{key: tuple(value) for key, value in fields.items()})
