"""Scores of labels against reference masks: overlap and outlines, per image and class."""

from __future__ import annotations

from salip_ray.evaluation.instances import InstanceAverage, InstanceScore, instance_averages
from salip_ray.evaluation.nnunet import nnunet_summary
from salip_ray.evaluation.overlap import dice, iou
from salip_ray.evaluation.results import as_json
from salip_ray.evaluation.scores import Average, Evaluation, Score, Unscored
from salip_ray.evaluation.scoring import score_rows
from salip_ray.evaluation.stages import StageDice
from salip_ray.evaluation.surfaces import hd95, nsd
from salip_ray.evaluation.volumes import VolumeScore, volume_scores

__all__ = [
    "Average",
    "Evaluation",
    "InstanceAverage",
    "InstanceScore",
    "Score",
    "StageDice",
    "Unscored",
    "VolumeScore",
    "as_json",
    "dice",
    "hd95",
    "instance_averages",
    "iou",
    "nnunet_summary",
    "nsd",
    "score_rows",
    "volume_scores",
]
