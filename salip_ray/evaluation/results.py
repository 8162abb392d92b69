"""The machine-readable form of an evaluation: one shape wherever figures are written."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from salip_ray.evaluation.scoring import Average, Evaluation

SCHEMA_VERSION = 1


def as_json(evaluation: Evaluation) -> str:
    """An evaluation as JSON text, ending in a newline. A figure that is NaN becomes null.

    ``classes``: class -> method -> means, ``n`` images that count, ``empty`` that do not.
    ``images``: every score that a mean was made of. ``unscored``: images without one, and why.
    """
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "classes": {
            label: {method: _average(mean) for method, mean in methods.items()}
            for label, methods in evaluation.averages().items()
        },
        "errors": sum(item.reason == "error" for item in evaluation.unscored),
        "without_reference": sum(
            item.reason == "without_reference" for item in evaluation.unscored
        ),
        "not_committed": evaluation.not_committed,
        "unscored": [asdict(item) for item in evaluation.unscored],
        "images": [
            {**asdict(score), "dice": _figure(score.dice), "iou": _figure(score.iou)}
            for score in evaluation.scores
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _average(mean: Average) -> dict[str, Any]:
    data: dict[str, Any] = {
        "dice": _figure(mean.dice),
        "iou": _figure(mean.iou),
        "n": mean.n,
        "empty": mean.empty,
    }
    return data if mean.variant is None else {**data, "variant": mean.variant}


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else value
