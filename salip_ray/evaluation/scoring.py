"""Scoring the rows of a run against reference masks.

Every image of the run ends in one of four places: it has a score for each class and method, it is
an ``error`` row, it has no reference, or the recipe was tuned on it. The last three are listed,
never dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from salip_ray.errors import InputError
from salip_ray.evaluation.intervals import mean_interval
from salip_ray.evaluation.overlap import dice, iou
from salip_ray.evaluation.stages import Walk, failed_stage
from salip_ray.evaluation.surfaces import hd95, nsd
from salip_ray.output.masks import decode_rle
from salip_ray.schema import Mask

#: From a row to the reference mask [H, W] of each class of its image, or None where it has none.
ReferenceOf = Callable[[Mapping[str, Any]], Mapping[str, Mask] | None]


@dataclass(frozen=True, slots=True)
class Score:
    """One image, class and method. Figures are NaN where label and reference are empty.

    ``hd95`` (pixels) is NaN where either is, and, as ``nsd``, where surfaces were not asked for.
    ``tp``, ``fp``, ``fn`` and ``tn`` count pixels. ``volume`` and ``slice`` are those of the row.
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
    """An image without a score; ``reason`` is ``error``, ``without_reference`` or ``tuned_on``."""

    image_id: str
    uri: str
    reason: str
    message: str = ""
    volume: str | None = None
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class Average:
    """Means over the ``n`` images of a class that count.

    In ``empty`` more, neither label nor reference holds anything. Means are NaN where ``n`` is 0.
    ``variant`` says which of several methods a headline figure is. ``hd95`` is the mean over the
    ``n_surface`` images where neither is empty, so a label that misses the organ altogether counts
    in Dice and NSD, but not in it. ``dice_interval`` is the bootstrap's, over images, the slices
    of a volume as one.
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


@dataclass(frozen=True)
class Evaluation:
    """Scores of one run or several, in the order of their rows."""

    scores: tuple[Score, ...]
    unscored: tuple[Unscored, ...] = ()
    not_committed: int = 0
    walks: tuple[Walk, ...] = ()

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.scores + other.scores,
            self.unscored + other.unscored,
            self.not_committed + other.not_committed,
            self.walks + other.walks,
        )

    @property
    def n_images(self) -> int:
        """Number of images, scored or not."""
        return len({s.image_id for s in self.scores} | {u.image_id for u in self.unscored})

    def averages(self) -> dict[str, dict[str, Average]]:
        """Means per class and method, with ``unprompted`` as the better of its two variants.

        The better on average over all images, chosen per class: what one would report who had seen
        the references, so the gain of the cascade over it is never flattered.
        """
        grouped: dict[str, dict[str, list[Score]]] = {}
        for score in self.scores:
            grouped.setdefault(score.label, {}).setdefault(score.method, []).append(score)
        averages: dict[str, dict[str, Average]] = {}
        for label, methods in grouped.items():
            means = {method: _average(scores) for method, scores in methods.items()}
            variants = [name for name in means if name.startswith("unprompted_")]
            if variants:
                best = max(variants, key=lambda name: _nan_last(means[name].dice))
                means["unprompted"] = replace(means[best], variant=best)
            averages[label] = means
        return averages


def score_rows(
    rows: Iterable[Mapping[str, Any]],
    reference_of: ReferenceOf,
    *,
    labels: Sequence[str],
    methods: Sequence[str],
    surfaces: bool = True,
    tuned_on: Collection[str] = (),
) -> Evaluation:
    """Score each class and method of each row.

    A class that a method gave no mask for is an empty label: Dice 0 where the reference is not
    empty.

    Args:
        rows: rows with the columns of :data:`salip_ray.schema.LABEL_SCHEMA`.
        reference_of: the reference masks of an image, by its row.
        labels: the classes of the run.
        methods: the methods that the run was asked for.
        surfaces: whether to compute HD95 and NSD, which take most of the time.
        tuned_on: ids of images that chose the recipe, and can't be a test of it.

    Raises:
        InputError: a reference has another size than its image.
    """
    scores: list[Score] = []
    walks: list[Walk] = []
    unscored: list[Unscored] = []
    for row in rows:
        name = (row["image_id"], row["uri"])
        place: dict[str, Any] = {"volume": row.get("volume"), "slice": row.get("slice")}
        if row["status"] == "error":
            said = (row["error"] or {}).get("message") or ""
            unscored.append(Unscored(*name, "error", said, **place))
            continue
        if row["image_id"] in tuned_on:
            unscored.append(Unscored(*name, "tuned_on", **place))
            continue
        references = reference_of(row)
        if references is None:
            unscored.append(Unscored(*name, "without_reference", **place))
            continue
        shape = (row["height"], row["width"])
        found = {(mask["method"], mask["label"]): mask for mask in row["masks"] or ()}
        for label in labels:
            reference = references[label]
            if reference.shape != shape:
                raise InputError(
                    f"the reference of {row['uri']} is {_size(reference.shape)} (height x width), "
                    f"but the image is {_size(shape)}"
                )
            for method in methods:
                cell = found.get((method, label))
                mask = np.zeros(shape, np.bool_) if cell is None else decode_rle(cell["rle"])
                score = _score((*name, label, method), mask, reference, surfaces)
                scores.append(replace(score, **place))
                if method == "cascade" and reference.any():
                    best = found.get(("gt_sam", label))
                    walks.append(_walk(name, label, cell, best, reference, scores[-1].dice))
    return Evaluation(tuple(scores), tuple(unscored), walks=tuple(walks))


def _score(name: tuple[str, str, str, str], mask: Mask, reference: Mask, surfaces: bool) -> Score:
    tp = int(np.count_nonzero(mask & reference))
    fp, fn = (int(np.count_nonzero(whole)) - tp for whole in (mask, reference))
    return Score(
        *name,
        dice=dice(mask, reference),
        iou=iou(mask, reference),
        hd95=hd95(mask, reference) if surfaces else math.nan,
        nsd=nsd(mask, reference) if surfaces else math.nan,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=mask.size - tp - fp - fn,
    )


def _walk(
    name: tuple[str, str],
    label: str,
    cascade: Mapping[str, Any] | None,
    best: Mapping[str, Any] | None,
    reference: Mask,
    refined: float,
) -> Walk:
    """How a class came to its Dice; rows made before proposals were kept say nothing of them."""

    def of_proposed(cell: Mapping[str, Any] | None) -> float:
        rle = None if cell is None else cell.get("proposed")
        return math.nan if rle is None else dice(decode_rle(rle), reference)

    # Without a label there is nothing to say of the pick: mostly there was none.
    picked, proposed = of_proposed(cascade), of_proposed(best)
    if not math.isnan(picked) and not math.isnan(proposed):
        proposed = max(proposed, picked)
    return Walk(*name, label, proposed, picked, refined, failed_stage(proposed, picked, refined))


def _average(scores: Sequence[Score]) -> Average:
    counted = [score for score in scores if not math.isnan(score.dice)]
    surfaces = [score.hd95 for score in counted if not math.isnan(score.hd95)]
    near = [score.nsd for score in counted if not math.isnan(score.nsd)]
    return Average(
        dice=_mean([score.dice for score in counted]),
        iou=_mean([score.iou for score in counted]),
        n=len(counted),
        empty=len(scores) - len(counted),
        hd95=_mean(surfaces),
        nsd=_mean(near),
        n_surface=len(surfaces),
        dice_interval=mean_interval(
            [score.dice for score in counted],
            [score.volume or score.image_id for score in counted],
        ),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _nan_last(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)
