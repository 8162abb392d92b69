"""The machine-readable form of an evaluation: one shape wherever figures are written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from salip_ray.evaluation.intervals import LEVEL, RESAMPLES, SEED
from salip_ray.evaluation.nnunet import nan_mean
from salip_ray.evaluation.scoring import Average, Evaluation, Score
from salip_ray.evaluation.stages import GOOD, Walk, failures
from salip_ray.evaluation.surfaces import TOLERANCE
from salip_ray.evaluation.volumes import VolumeScore, volume_scores

SCHEMA_VERSION = 1


def as_json(evaluation: Evaluation) -> str:
    """An evaluation as JSON text, ending in a newline. A figure that is NaN becomes null.

    ``classes``: class -> method -> means, ``n`` images that count, ``empty`` that do not, the
    bootstrap interval of Dice, HD95 in pixels over ``n_surface`` images, NSD. ``images``: every
    score that a mean was made of. ``unscored``: images without one, and why. ``stages``: class ->
    mean Dice of the best proposals, the picked ones and the refined label over the images with a
    reference, and how many labels each stage lost; ``walks``: the same of each image. ``volumes``:
    Dice and IoU in 3-D of each volume whose slices were scored.
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
        "tuned_on": sum(item.reason == "tuned_on" for item in evaluation.unscored),
        "not_committed": evaluation.not_committed,
        "unscored": [asdict(item) for item in evaluation.unscored],
        "images": _figures(evaluation.scores),
        "volumes": _figures(volume_scores(evaluation)),
        "stages": _stages(evaluation.walks),
        "walks": _figures(evaluation.walks),
        "interval": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
        "nsd_tolerance_px": TOLERANCE,
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _average(mean: Average) -> dict[str, Any]:
    low, high = (_figure(end) for end in mean.dice_interval)
    data: dict[str, Any] = {
        "dice": _figure(mean.dice),
        "iou": _figure(mean.iou),
        "n": mean.n,
        "empty": mean.empty,
        "dice_interval": None if low is None else [low, high],
        "hd95": _figure(mean.hd95),
        "nsd": _figure(mean.nsd),
        "n_surface": mean.n_surface,
    }
    return data if mean.variant is None else {**data, "variant": mean.variant}


def _stages(walks: Sequence[Walk]) -> dict[str, Any]:
    by_label: dict[str, list[Walk]] = {}
    for walk in walks:
        by_label.setdefault(walk.label, []).append(walk)
    counts = failures(walks)
    return {
        label: {
            "n": len(found),
            "good_dice": GOOD,
            "proposed": _figure(nan_mean([walk.proposed for walk in found])),
            "picked": _figure(nan_mean([walk.picked for walk in found])),
            "refined": _figure(nan_mean([walk.refined for walk in found])),
            "failed": counts[label],
        }
        for label, found in by_label.items()
    }


def _figures(items: Iterable[Score | VolumeScore | Walk]) -> list[dict[str, Any]]:
    return [{name: _figure(value) for name, value in asdict(item).items()} for item in items]


def _figure(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
