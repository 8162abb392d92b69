"""The overlap of whole volumes in 3-D, from the pixel counts of their slices."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from salip_ray.evaluation.scores import Evaluation, Score


@dataclass(frozen=True, slots=True)
class VolumeScore:
    """The score of one volume, class and method over all scored slices.

    Attributes:
        uri: the file of the volume; None if each slice is a file.
        dice: NaN if label and reference are empty in every slice; ``iou`` likewise.
        slices: number of scored slices.
        unscored: number of slices that are error rows or have no reference.
    """

    volume: str
    uri: str | None
    label: str
    method: str
    dice: float
    iou: float
    slices: int
    unscored: int


def volume_scores(evaluation: Evaluation) -> tuple[VolumeScore, ...]:
    """Return the scores of the volumes of an evaluation, in order; other images are left out."""
    unscored = Counter(item.volume for item in evaluation.unscored)
    grouped: dict[tuple[str, str, str], list[Score]] = {}
    for score in evaluation.scores:
        if score.volume is not None:
            grouped.setdefault((score.volume, score.label, score.method), []).append(score)
    return tuple(
        _volume_score(*name, scores, unscored[name[0]]) for name, scores in grouped.items()
    )


def _volume_score(
    volume: str, label: str, method: str, scores: list[Score], unscored: int
) -> VolumeScore:
    both = sum(score.tp for score in scores)
    either = both + sum(score.fp + score.fn for score in scores)
    uris = {score.uri for score in scores}
    return VolumeScore(
        volume,
        uris.pop() if len(uris) == 1 else None,
        label,
        method,
        dice=2 * both / (both + either) if either else math.nan,
        iou=both / either if either else math.nan,
        slices=len(scores),
        unscored=unscored,
    )
