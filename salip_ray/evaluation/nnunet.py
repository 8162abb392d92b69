"""An evaluation under nnU-Net's names: the ``summary.json`` that its tools read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from salip_ray.evaluation.scoring import Evaluation, Score

FILE = "summary_nnunet.json"


def nnunet_summary(
    evaluation: Evaluation,
    class_ids: Mapping[str, int],
    *,
    method: str = "cascade",
    reference_file: Callable[[Score], str | None] = lambda _score: None,
) -> str:
    """One method's scores as JSON text in the shape of nnU-Net's ``summary.json``.

    ``Dice`` and ``IoU`` are NaN where prediction and reference are both empty, and means leave
    those out, as nnU-Net's do; each mean adds ``n_empty``, their number, and ``HD95`` and ``NSD``
    stand beside nnU-Net's own figures.

    Args:
        evaluation: scores of one run.
        class_ids: class id by label; ids are the keys that nnU-Net reads.
        method: whose scores.
        reference_file: the reference mask's URI, by a score of its image.
    """
    scores = [s for s in evaluation.scores if s.method == method and s.label in class_ids]
    cases: dict[str, list[Score]] = {}
    for score in scores:
        cases.setdefault(score.image_id, []).append(score)
    means = {
        str(class_ids[label]): _mean([s for s in scores if s.label == label])
        for label in class_ids
        if any(score.label == label for score in scores)
    }
    data = {
        "foreground_mean": _mean_of_means(list(means.values())),
        "mean": means,
        "metric_per_case": [
            {
                "metrics": {str(class_ids[s.label]): _metrics(s) for s in found},
                "prediction_file": f"{image_id}.mask.png",
                "reference_file": reference_file(found[0]),
                "image_file": found[0].uri,
            }
            for image_id, found in cases.items()
        ],
        "method": method,
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _metrics(score: Score) -> dict[str, float]:
    return {
        "Dice": score.dice,
        "FN": score.fn,
        "FP": score.fp,
        "HD95": score.hd95,
        "IoU": score.iou,
        "NSD": score.nsd,
        "TN": score.tn,
        "TP": score.tp,
        "n_pred": score.tp + score.fp,
        "n_ref": score.tp + score.fn,
    }


def _mean(scores: Sequence[Score]) -> dict[str, float]:
    per_case = [_metrics(score) for score in scores]
    found = {name: nan_mean([case[name] for case in per_case]) for name in per_case[0]}
    return {**found, "n_empty": sum(math.isnan(score.dice) for score in scores)}


def _mean_of_means(means: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in (means[0] if means else {}) if name != "n_empty"]
    return {name: nan_mean([mean[name] for mean in means]) for name in names}


def nan_mean(values: Sequence[float]) -> float:
    """The mean of what is not NaN; NaN where nothing is left."""
    counted = [value for value in values if not math.isnan(value)]
    return math.fsum(counted) / len(counted) if counted else math.nan
