"""Scoring the rows of a run against reference masks.

Every image of the run ends in one of three places: it has a score for each class and method, it is
an ``error`` row, or it has no reference. The last two are listed, never dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from salip_ray.errors import InputError
from salip_ray.evaluation.metrics import dice, iou
from salip_ray.labels.masks import decode_rle
from salip_ray.rows import Mask

#: From an image's URI to the reference mask [H, W] of each class, or None where it has none.
ReferenceOf = Callable[[str], Mapping[str, Mask] | None]


@dataclass(frozen=True, slots=True)
class Score:
    """One image, class and method. Both figures are NaN where label and reference are empty."""

    image_id: str
    uri: str
    label: str
    method: str
    dice: float
    iou: float


@dataclass(frozen=True, slots=True)
class Unscored:
    """An image that could not be scored; ``reason`` is ``error`` or ``without_reference``."""

    image_id: str
    uri: str
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Average:
    """Means over the ``n`` images of a class that count.

    In ``empty`` more, neither label nor reference holds anything. Both means are NaN where ``n`` is
    0. ``variant`` says which of several methods a headline figure is.
    """

    dice: float
    iou: float
    n: int
    empty: int
    variant: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores of one run or several, in the order of their rows."""

    scores: tuple[Score, ...]
    unscored: tuple[Unscored, ...] = ()
    not_committed: int = 0

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.scores + other.scores,
            self.unscored + other.unscored,
            self.not_committed + other.not_committed,
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
                chosen = means[best]
                means["unprompted"] = Average(
                    chosen.dice, chosen.iou, chosen.n, chosen.empty, variant=best
                )
            averages[label] = means
        return averages


def score_rows(
    rows: Iterable[Mapping[str, Any]],
    reference_of: ReferenceOf,
    *,
    labels: Sequence[str],
    methods: Sequence[str],
) -> Evaluation:
    """Score each class and method of each row.

    A class that a method gave no mask for is an empty label: Dice 0 where the reference is not
    empty.

    Args:
        rows: rows with the columns of :data:`salip_ray.rows.LABEL_SCHEMA`.
        reference_of: the reference masks of an image, by its URI.
        labels: the classes of the run.
        methods: the methods that the run was asked for.

    Raises:
        InputError: a reference has another size than its image.
    """
    scores: list[Score] = []
    unscored: list[Unscored] = []
    for row in rows:
        name = (row["image_id"], row["uri"])
        if row["status"] == "error":
            unscored.append(Unscored(*name, "error", (row["error"] or {}).get("message") or ""))
            continue
        references = reference_of(row["uri"])
        if references is None:
            unscored.append(Unscored(*name, "without_reference"))
            continue
        shape = (row["height"], row["width"])
        found = {(mask["method"], mask["label"]): mask["rle"] for mask in row["masks"] or ()}
        for label in labels:
            reference = references[label]
            if reference.shape != shape:
                raise InputError(
                    f"the reference of {row['uri']} is {_size(reference.shape)} (height x width), "
                    f"but the image is {_size(shape)}"
                )
            for method in methods:
                rle = found.get((method, label))
                mask = np.zeros(shape, np.bool_) if rle is None else decode_rle(rle)
                scores.append(
                    Score(*name, label, method, dice(mask, reference), iou(mask, reference))
                )
    return Evaluation(tuple(scores), tuple(unscored))


def _average(scores: Sequence[Score]) -> Average:
    counted = [score for score in scores if not math.isnan(score.dice)]
    n = len(counted)
    return Average(
        dice=math.fsum(score.dice for score in counted) / n if n else math.nan,
        iou=math.fsum(score.iou for score in counted) / n if n else math.nan,
        n=n,
        empty=len(scores) - n,
    )


def _nan_last(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)
