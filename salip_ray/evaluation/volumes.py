"""The scores of whole volumes in 3-D: overlap from the pixel counts of slices, and surfaces."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from salip_ray.evaluation.scores import Evaluation, Score
from salip_ray.evaluation.volume_surfaces import VolumeSurfaces


@dataclass(frozen=True, slots=True)
class VolumeScore:
    """The score of one volume, class and method over all scored slices.

    Attributes:
        uri: the file of the volume; None if each slice is a file.
        dice: NaN if label and reference are empty in every slice; ``iou`` likewise.
        slices: number of scored slices.
        unscored: number of slices that are error rows or have no reference.
        hd95_mm: of the surfaces in 3-D, in millimetres; NaN if label or reference is empty, if a
            slice is not scored, or if the distance of the slices is unknown.
        nsd_mm: the share of both surfaces within 2 mm of each other; NaN likewise, but 0 if only
            one of the two is empty.
    """

    volume: str
    uri: str | None
    label: str
    method: str
    dice: float
    iou: float
    slices: int
    unscored: int
    hd95_mm: float = math.nan
    nsd_mm: float = math.nan


def volume_scores(evaluation: Evaluation) -> tuple[VolumeScore, ...]:
    """Return the scores of the volumes of an evaluation, in order; other images are left out."""
    unscored = Counter(item.volume for item in evaluation.unscored)
    grouped: dict[tuple[str, str, str], list[Score]] = {}
    for score in evaluation.scores:
        if score.volume is not None:
            grouped.setdefault((score.volume, score.label, score.method), []).append(score)
    surfaces = {(s.volume, s.label, s.method): s for s in evaluation.volume_surfaces}
    return tuple(
        _volume_score(*name, scores, unscored[name[0]], surfaces.get(name))
        for name, scores in grouped.items()
    )


def _volume_score(
    volume: str,
    label: str,
    method: str,
    scores: list[Score],
    unscored: int,
    surfaces: VolumeSurfaces | None,
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
        hd95_mm=math.nan if surfaces is None else surfaces.hd95_mm,
        nsd_mm=math.nan if surfaces is None else surfaces.nsd_mm,
    )
