"""The JSON form of an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from salip_ray.evaluation.instances import (
    MATCH_IOU,
    InstanceAverage,
    InstanceScore,
    instance_averages,
)
from salip_ray.evaluation.intervals import LEVEL, RESAMPLES, SEED, nan_mean
from salip_ray.evaluation.scores import Average, Evaluation, Score
from salip_ray.evaluation.stages import GOOD, StageDice, count_failures
from salip_ray.evaluation.surfaces import TOLERANCE
from salip_ray.evaluation.volume_surfaces import TOLERANCE_MM
from salip_ray.evaluation.volumes import VolumeScore, volume_scores

SCHEMA_VERSION = 1


def as_json(evaluation: Evaluation) -> str:
    """Return an evaluation as JSON text. NaN becomes null.

    - ``classes``: class -> method -> means. ``n`` images count and ``empty`` do not; HD95 is in
      pixels, over ``n_surface`` images.
    - ``images``: every score behind a mean. ``unscored``: images without a score, and why.
    - ``stages``: class -> mean Dice of the best proposals, the picked ones and the refined label,
      and how many labels each stage lost. ``walks``: the same for each image.
    - ``volumes``: 3-D Dice and IoU of each volume, and HD95 and NSD in mm, if its slices are
      a known distance apart.
    - ``instances``: class -> method -> F1 and PQ of objects. ``objects``: matches per image.
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
        "calibrated_on": sum(item.reason == "calibrated_on" for item in evaluation.unscored),
        "not_committed": evaluation.not_committed,
        "unscored": [asdict(item) for item in evaluation.unscored],
        "images": _figures(evaluation.scores),
        "volumes": _figures(volume_scores(evaluation)),
        "instances": {
            label: {method: _instances(mean) for method, mean in methods.items()}
            for label, methods in instance_averages(evaluation.instances).items()
        },
        "objects": _figures(evaluation.instances),
        "stages": _stages(evaluation.stages),
        "walks": _figures(evaluation.stages),
        "interval": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
        "match_iou": MATCH_IOU,
        "nsd_tolerance_px": TOLERANCE,
        "nsd_tolerance_mm": TOLERANCE_MM,
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


def _instances(mean: InstanceAverage) -> dict[str, Any]:
    data = {name: _figure(value) for name, value in asdict(mean).items()}
    for name in ("f1_interval", "pq_interval"):
        ends = [_figure(end) for end in data[name]]
        data[name] = None if None in ends else ends
    return data


def _stages(stages: Sequence[StageDice]) -> dict[str, Any]:
    by_label: dict[str, list[StageDice]] = {}
    for item in stages:
        by_label.setdefault(item.label, []).append(item)
    counts = count_failures(stages)
    return {
        label: {
            "n": len(items),
            "good_dice": GOOD,
            "proposed": _figure(nan_mean([item.proposed for item in items])),
            "picked": _figure(nan_mean([item.picked for item in items])),
            "refined": _figure(nan_mean([item.refined for item in items])),
            "failed": counts[label],
        }
        for label, items in by_label.items()
    }


def _figures(
    items: Iterable[Score | VolumeScore | StageDice | InstanceScore],
) -> list[dict[str, Any]]:
    return [{name: _figure(value) for name, value in asdict(item).items()} for item in items]


def _figure(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
