"""What an evaluation consists of: scores of images, their means, and images without a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from salip_ray.evaluation.instances import InstanceScore
from salip_ray.evaluation.intervals import mean_interval, nan_mean
from salip_ray.evaluation.stages import StageDice
from salip_ray.evaluation.volume_surfaces import VolumeSurfaces


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one image, class and method.

    Attributes:
        dice: NaN if label and reference are empty; ``iou`` likewise.
        hd95: in pixels; NaN if label or reference is empty, or surfaces were not computed.
        nsd: NaN if label and reference are empty, or surfaces were not computed.
        tp: pixels in label and reference; ``fp``, ``fn`` and ``tn`` are pixel counts, too.
        volume: that of the row; ``slice`` likewise.
    """

    image_id: str
    uri: str
    label: str
    method: str
    dice: float
    iou: float
    hd95: float = math.nan
    nsd: float = math.nan
    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0
    volume: str | None = None
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class Unscored:
    """An image without a score.

    ``reason`` is ``error``, ``without_reference``, ``tuned_on`` or ``calibrated_on``.
    """

    image_id: str
    uri: str
    reason: str
    message: str = ""
    volume: str | None = None
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class Average:
    """Means of one class and method.

    Attributes:
        dice: mean over ``n`` images; ``iou`` and ``nsd`` likewise.
        empty: number of images left out because label and reference are empty.
        variant: which of several methods a headline figure is of.
        hd95: mean in pixels over ``n_surface`` images, those in which neither is empty. A label
            that misses the organ counts in Dice and NSD, but not here.
        dice_interval: bootstrap interval over images; the slices of a volume count as one.
    """

    dice: float
    iou: float
    n: int
    empty: int
    variant: str | None = None
    hd95: float = math.nan
    nsd: float = math.nan
    n_surface: int = 0
    dice_interval: tuple[float, float] = (math.nan, math.nan)

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Average:
        """Return the means of some scores."""
        counted = [score for score in scores if not math.isnan(score.dice)]
        surfaces = [score.hd95 for score in counted if not math.isnan(score.hd95)]
        return cls(
            dice=nan_mean([score.dice for score in counted]),
            iou=nan_mean([score.iou for score in counted]),
            n=len(counted),
            empty=len(scores) - len(counted),
            hd95=nan_mean(surfaces),
            nsd=nan_mean([score.nsd for score in counted]),
            n_surface=len(surfaces),
            dice_interval=mean_interval(
                [score.dice for score in counted],
                [score.volume or score.image_id for score in counted],
            ),
        )


@dataclass(frozen=True)
class Evaluation:
    """The scores of one run or several, in the order of their rows.

    Attributes:
        scores: one per image, class and method.
        unscored: images without a score.
        not_committed: number of images that are not labelled yet.
        stages: Dice along the cascade, per image and class.
        volume_surfaces: HD95 and NSD of whole volumes, as far as their slices are millimetres
            apart.
        instances: the matches of objects, per image, class and method.
        joined: the number of reference masks whose values were joined: the task has one class, and
            they have several values above 0.
    """

    scores: tuple[Score, ...]
    unscored: tuple[Unscored, ...] = ()
    not_committed: int = 0
    stages: tuple[StageDice, ...] = ()
    volume_surfaces: tuple[VolumeSurfaces, ...] = ()
    instances: tuple[InstanceScore, ...] = ()
    joined: int = 0

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.scores + other.scores,
            self.unscored + other.unscored,
            self.not_committed + other.not_committed,
            self.stages + other.stages,
            self.volume_surfaces + other.volume_surfaces,
            self.instances + other.instances,
            self.joined + other.joined,
        )

    @property
    def n_images(self) -> int:
        """Number of images, scored or not."""
        return len({s.image_id for s in self.scores} | {u.image_id for u in self.unscored})

    def averages(self) -> dict[str, dict[str, Average]]:
        """Return the means per class and method.

        ``unprompted`` is the better of its two variants, chosen per class by the mean over all
        images. That choice needs the references, so it never flatters the gain of the cascade.
        """
        grouped: dict[str, dict[str, list[Score]]] = {}
        for score in self.scores:
            grouped.setdefault(score.label, {}).setdefault(score.method, []).append(score)
        averages: dict[str, dict[str, Average]] = {}
        for label, methods in grouped.items():
            means = {method: Average.of(scores) for method, scores in methods.items()}
            variants = [name for name in means if name.startswith("unprompted_")]
            if variants:
                best = max(variants, key=lambda name: _nan_last(means[name].dice))
                means["unprompted"] = replace(means[best], variant=best)
            averages[label] = means
        return averages


def _nan_last(value: float) -> float:
    return -math.inf if math.isnan(value) else value
