"""The Dice of a run by the published scoring, and by ours.

Published in 2-D: at 256 x 256, whatever the shape of the image, against a reference that is resized
bilinearly. Published in 3-D: the mean over the slices of a volume. Ours: at the size of the image,
and of a volume in 3-D.

Source: ``dice_coeff`` in ``utils/utils.py`` and in ``sam_clip_3d.py`` of aleemsidra/SaLIP.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.cascade.geometry import class_references, to_working_mask
from salip_ray.evaluation import volume_scores
from salip_ray.evaluation.intervals import mean_interval, nan_mean
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.output.masks import decode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Mask
from salip_ray.sources.references import References

_SIDE = 256
_EPSILON = 1e-6
_COLUMNS = ("image_id", "uri", "volume", "slice", "status", "masks", "spacing", "height", "width")


@dataclass(frozen=True)
class Figure:
    """The Dice of one image, slice or volume.

    Attributes:
        run: ``faithful`` or ``ours``.
        scoring: ``published`` or ``ours``.
        method: ``cascade``, ``gt_sam``, ``unprompted_confident`` or ``unprompted_largest``.
        uri: of the image.
        slice: its index; None for images and whole volumes.
        dice: NaN if label and reference are empty.
    """

    run: str
    scoring: str
    method: str
    uri: str
    slice: int | None
    dice: float


@dataclass(frozen=True)
class Mean:
    """The mean Dice of a method over files, and its 95 % bootstrap interval."""

    dice: float
    low: float
    high: float
    n: int


def dice_2d(mask: Mask, reference: Mask, *, binary: bool) -> float:
    """Return the published Dice of an image; NaN if both masks are empty.

    Args:
        mask: bool [H, W] of the image's size.
        reference: bool [H, W] of the image's size.
        binary: make the resized reference binary, else it stays fractional at its outline.
    """
    small = to_working_mask(mask, (_SIDE, _SIDE))
    truth: npt.NDArray[Any]
    if binary:
        grey = cv2.resize(reference.astype(np.uint8) * 255, (_SIDE, _SIDE))
        truth = (grey / 255.0 > 0.5).astype(np.float64)
    else:
        truth = cv2.resize(reference.astype(np.float32), (_SIDE, _SIDE)).astype(np.float64)
    total = truth.sum() + small.sum()
    return float(2.0 * (truth * small).sum() / total) if total else math.nan


def dice_of_slice(mask: Mask, reference: Mask) -> float:
    """Return the published Dice of a slice: 1 if both masks are empty."""
    total = int(mask.sum()) + int(reference.sum())
    both = 2 * int(np.count_nonzero(mask & reference))
    # Without a pixel in either mask the published code divides epsilon by epsilon.
    return (both + _EPSILON) / ((total or both) + _EPSILON)


def published_figures(
    run: str, labels: LabelOutput, references: References, *, volumes: bool, binary: bool
) -> Iterator[Figure]:
    """Yield the published Dice of every image or slice and method of an output.

    A row without a mask scores 0. Error rows are left out.
    """
    (spec,) = labels.classes
    counts: dict[str, int] = {}
    for volume in labels.manifest(["volume"])["volume"].drop_null().to_pylist():
        counts[volume] = counts.get(volume, 0) + 1
    for row in labels.rows(_COLUMNS):
        reference = references.find(labels.image_ref(row))
        if row["status"] == "error" or reference is None:
            continue
        ids = references.load(
            reference,
            labels.image_config,
            count=counts.get(row["volume"]),
            spacing=row["spacing"],
        )
        truth = class_references(ids, labels.classes)[spec.label]
        masks = {cell["method"]: cell["rle"] for cell in row["masks"] or ()}
        for method in labels.methods:
            mask = np.zeros(truth.shape, np.bool_)
            if method in masks:
                mask = decode_rle(masks[method])
            dice = dice_of_slice(mask, truth) if volumes else dice_2d(mask, truth, binary=binary)
            yield Figure(run, "published", method, row["uri"], row["slice"], dice)


def own_figures(
    run: str,
    labels: LabelOutput,
    references: References,
    *,
    volumes: bool,
    without: Collection[str] = (),
) -> Iterator[Figure]:
    """Yield our Dice of every image or volume and method, without the files of the search."""
    evaluation = evaluate_output(labels, references, surfaces=False)
    if volumes:
        for score in volume_scores(evaluation):
            uri = score.uri or score.volume
            if uri not in without:
                yield Figure(run, "ours", score.method, uri, None, score.dice)
        return
    for image in evaluation.scores:
        if image.uri not in without:
            yield Figure(run, "ours", image.method, image.uri, None, image.dice)


def mean_of(figures: Collection[Figure]) -> Mean:
    """Return the mean over files; that of a volume is the mean over its slices.

    Images without a Dice (label and reference are empty) are left out.
    """
    by_file: dict[str, list[float]] = {}
    for figure in figures:
        by_file.setdefault(figure.uri, []).append(figure.dice)
    means = [nan_mean(values) for values in by_file.values()]
    low, high = mean_interval(means)
    return Mean(nan_mean(means), low, high, sum(not math.isnan(mean) for mean in means))
