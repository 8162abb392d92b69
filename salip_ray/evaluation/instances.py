"""Scores of objects: how many instances of a class a label shows, and how well.

An instance of a label and one of the reference match if their IoU is above 0.5; each has one
partner at most. F1 counts the matches, and the panoptic quality (PQ; Kirillov et al., CVPR 2019) is
F1 times the mean IoU of the matches. Both are of all images together, not means over images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from salip_ray.evaluation.intervals import ratio_interval
from salip_ray.output.cells import instance_cells
from salip_ray.output.masks import Rle, area, component_rles, decode_rle
from salip_ray.schema import Mask

MATCH_IOU = 0.5
_MOST_PAIRS = 16_000_000  # compared at a time, with 8 bytes each
_LEAST_SHARE = 0.02  # of the largest component: smaller ones are specks, not objects


@dataclass(frozen=True, slots=True)
class InstanceScore:
    """The matches of one image, class and method.

    Attributes:
        labelled: number of instances of the label.
        reference: number of instances of the reference.
        matched: number of pairs that match.
        iou: sum of the IoU of these pairs.
        volume: that of the row; ``slice`` likewise.
    """

    image_id: str
    uri: str
    label: str
    method: str
    labelled: int
    reference: int
    matched: int
    iou: float
    volume: str | None = None
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceAverage:
    """The figures of one class and method over all images; NaN if there are no instances.

    Attributes:
        f1: 2 * matched / (labelled + reference).
        pq: panoptic quality; f1 times the mean IoU of the matches.
        f1_interval: bootstrap interval over images; the slices of a volume count as one.
        pq_interval: likewise.
    """

    f1: float
    pq: float
    labelled: int
    reference: int
    matched: int
    images: int
    f1_interval: tuple[float, float]
    pq_interval: tuple[float, float]


def match(labelled: Sequence[Rle], reference: Sequence[Rle]) -> tuple[int, float]:
    """Return the number of pairs of instances that match, and the sum of their IoU.

    Of several ways to pair them, the one with the highest sum is taken.
    """
    pairs = _overlapping(labelled, reference)
    if not pairs.nnz:
        return 0, 0.0
    # Objects that share no partner are independent: a matrix of all pairs may not fit in memory.
    count, groups = connected_components(
        sparse.block_array([[None, pairs], [pairs.T, None]]), directed=False
    )
    order = np.argsort(groups[pairs.row], kind="stable")
    ends = np.cumsum(np.bincount(groups[pairs.row], minlength=count))[:-1]
    matched, total = 0, []
    for own in np.split(order, ends):
        rows, columns = (np.unique(at[own], return_inverse=True)[1] for at in pairs.coords)
        ious = np.zeros((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1))
        ious[rows, columns] = pairs.data[own]
        best = ious[linear_sum_assignment(ious, maximize=True)]
        matched += int(np.count_nonzero(best))
        total.append(float(best.sum()))
    return matched, math.fsum(total)


def _overlapping(labelled: Sequence[Rle], reference: Sequence[Rle]) -> sparse.coo_array:
    """Return the IoU of each pair of instances for which it is above the limit."""
    plain = [[dict(rle) for rle in rles] for rles in (labelled, reference)]
    pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]] = []
    step = max(1, _MOST_PAIRS // max(1, len(reference)))
    for start in range(0, len(labelled) if reference else 0, step):
        part = plain[0][start : start + step]
        ious = np.asarray(coco.iou(part, plain[1], [False] * len(reference)), np.float64)
        rows, columns = np.nonzero(ious > MATCH_IOU)
        pairs.append((ious[rows, columns], rows + start, columns))
    shape = len(labelled), len(reference)
    if not pairs:
        return sparse.coo_array(shape)
    data, rows, columns = (np.concatenate(values) for values in zip(*pairs, strict=True))
    return sparse.coo_array((data, (rows, columns)), shape=shape)


def instances_of_mask(mask: Mask) -> list[Rle]:
    """Return the components of a mask [H, W] as instances, without specks."""
    parts = [(rle, area(rle)) for rle in component_rles(mask)]
    least = _LEAST_SHARE * max((pixels for _, pixels in parts), default=0)
    return [rle for rle, pixels in parts if pixels >= least]


def instances_of_cell(cell: Mapping[str, Any] | None) -> list[Rle]:
    """Return the instances of a mask cell; its components if it has no list of them."""
    if cell is None:
        return []
    if cell.get("instances") is None:
        return instances_of_mask(decode_rle(cell["rle"]))
    return [item["rle"] for item in instance_cells(cell)]


def instance_averages(
    scores: Sequence[InstanceScore],
) -> dict[str, dict[str, InstanceAverage]]:
    """Return the figures per class and method."""
    grouped: dict[str, dict[str, list[InstanceScore]]] = {}
    for score in scores:
        grouped.setdefault(score.label, {}).setdefault(score.method, []).append(score)
    return {
        label: {method: _average(of_method) for method, of_method in methods.items()}
        for label, methods in grouped.items()
    }


def _average(scores: Sequence[InstanceScore]) -> InstanceAverage:
    groups = [score.volume or score.image_id for score in scores]
    pairs = [2.0 * score.matched for score in scores]
    ious = [2.0 * score.iou for score in scores]
    instances = [score.labelled + score.reference for score in scores]
    total = sum(instances)
    return InstanceAverage(
        f1=sum(pairs) / total if total else math.nan,
        pq=math.fsum(ious) / total if total else math.nan,
        labelled=sum(score.labelled for score in scores),
        reference=sum(score.reference for score in scores),
        matched=sum(score.matched for score in scores),
        images=len(scores),
        f1_interval=ratio_interval(pairs, instances, groups),
        pq_interval=ratio_interval(ious, instances, groups),
    )
