"""How good labels are: overlap with reference masks, kept for every image."""

from __future__ import annotations

from salip_ray.evaluation.metrics import dice, iou
from salip_ray.evaluation.results import as_json
from salip_ray.evaluation.scoring import Average, Evaluation, Score, Unscored, score_rows

__all__ = [
    "Average",
    "Evaluation",
    "Score",
    "Unscored",
    "as_json",
    "dice",
    "iou",
    "score_rows",
]
