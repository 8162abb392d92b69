"""How good labels are: overlap and outlines against reference masks, kept for every image."""

from __future__ import annotations

from salip_ray.evaluation.nnunet import nnunet_summary
from salip_ray.evaluation.overlap import dice, iou
from salip_ray.evaluation.results import as_json
from salip_ray.evaluation.scoring import Average, Evaluation, Score, Unscored, score_rows
from salip_ray.evaluation.stages import Walk
from salip_ray.evaluation.surfaces import hd95, nsd
from salip_ray.evaluation.volumes import VolumeScore, volume_scores

__all__ = [
    "Average",
    "Evaluation",
    "Score",
    "Unscored",
    "VolumeScore",
    "Walk",
    "as_json",
    "dice",
    "hd95",
    "iou",
    "nnunet_summary",
    "nsd",
    "score_rows",
    "volume_scores",
]
