"""An evaluation with nnU-Net's names: the ``summary.json`` that its tools read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from salip_ray.evaluation.intervals import nan_mean
from salip_ray.evaluation.scores import Evaluation, Score
from salip_ray.output.layout import label_map_member


def nnunet_summary(
    evaluation: Evaluation,
    class_ids: Mapping[str, int],
    *,
    method: str = "cascade",
    reference_file: Callable[[Score], str | None] = lambda _score: None,
) -> str:
    """Return one method's scores as JSON text in the shape of nnU-Net's ``summary.json``.

    ``Dice`` and ``IoU`` are NaN if prediction and reference are both empty. Means leave those
    out, as in nnU-Net; each mean has their number as ``n_empty``. ``HD95`` and ``NSD`` are added
    to nnU-Net's figures.

    Args:
        evaluation: scores of one run.
        class_ids: class id by label; nnU-Net's keys are ids.
        method: the method to write.
        reference_file: returns the URI of the reference mask of a score's image.
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
                "metrics": {str(class_ids[s.label]): _metrics(s) for s in of_image},
                "prediction_file": label_map_member(image_id),
                "reference_file": reference_file(of_image[0]),
                "image_file": of_image[0].uri,
            }
            for image_id, of_image in cases.items()
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
    means = {name: nan_mean([case[name] for case in per_case]) for name in per_case[0]}
    return {**means, "n_empty": sum(math.isnan(score.dice) for score in scores)}


def _mean_of_means(means: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in (means[0] if means else {}) if name != "n_empty"]
    return {name: nan_mean([mean[name] for mean in means]) for name in names}
