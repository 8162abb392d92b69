"""HD95 and NSD of whole volumes in 3-D, in millimetres.

The masks of a volume are collected as RLEs, slice by slice, and measured when its last slice has
come, so that memory is bounded by the volumes that are under way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco
from scipy import ndimage
from scipy.spatial import KDTree

from salip_ray.output.masks import Rle, bbox_xywh, encode_rle
from salip_ray.schema import Mask

TOLERANCE_MM = 2.0
"""Distance in millimetres up to which NSD counts two surfaces as the same."""

Spacing3D: TypeAlias = tuple[float, float, float]  #: mm from slice to slice, row to row, column


@dataclass(frozen=True, slots=True)
class VolumeSurfaces:
    """The surface figures of one volume, class and method; see :func:`surface_figures`."""

    volume: str
    label: str
    method: str
    hd95_mm: float
    nsd_mm: float


class SurfaceCollector:
    """Collect the masks of volumes and measure each when it is complete.

    Args:
        slices: the number of slices of each volume. A volume of which a slice is missing, or was
            not scored, has no figures.
    """

    def __init__(self, slices: Mapping[str, int]) -> None:
        self._slices = slices
        # Label and reference of each slice so far, by volume, class and method.
        self._stacks: dict[tuple[str, str, str], dict[int, tuple[Rle, Rle]]] = {}
        self.figures: list[VolumeSurfaces] = []

    def add(
        self,
        row: Mapping[str, Any],
        label: str,
        method: str,
        masks: tuple[Mask, Mask],
        slice_mm: float | None,
    ) -> None:
        """Add the label and the reference [H, W] of one slice.

        Args:
            row: of the slice; its ``volume``, ``slice`` and ``spacing`` are used.
            label: of the class.
            method: of the label.
            masks: label and reference.
            slice_mm: millimetres from slice to slice; None: unknown, no figures.
        """
        spacing = row.get("spacing")
        volume: str = row["volume"]
        if volume not in self._slices or spacing is None or not slice_mm:
            return
        name = (volume, label, method)
        stack = self._stacks.setdefault(name, {})
        stack[row["slice"]] = (encode_rle(masks[0]), encode_rle(masks[1]))
        if len(stack) < self._slices[volume]:
            return
        labels, references = zip(*(stack[number] for number in sorted(stack)), strict=True)
        figures = surface_figures(labels, references, (slice_mm, spacing[0], spacing[1]))
        self.figures.append(VolumeSurfaces(*name, *figures))
        del self._stacks[name]


def surface_figures(
    prediction: Sequence[Rle],
    reference: Sequence[Rle],
    spacing: Spacing3D,
    tolerance: float = TOLERANCE_MM,
) -> tuple[float, float]:
    """Return HD95 and NSD of two volumes of the same slices.

    The surface of a mask are its voxels with a face to the background. HD95 is the larger of the
    95th percentiles of both directions, NaN if a mask is empty. NSD is the share of both surfaces
    within ``tolerance`` of the other one: 0 if only one mask is empty, NaN if both are.

    Args:
        prediction: the mask of each slice.
        reference: the mask of each slice.
        spacing: mm from slice to slice, from row to row, and from column to column.
        tolerance: in mm.
    """
    surfaces = [_surface(rles) * np.array(spacing) for rles in (prediction, reference)]
    if not all(map(len, surfaces)):
        return math.nan, 0.0 if any(map(len, surfaces)) else math.nan
    one, other = surfaces
    ways = [KDTree(to).query(of)[0] for of, to in ((one, other), (other, one))]
    hd95 = max(float(np.quantile(way, 0.95)) for way in ways)
    return hd95, float(np.mean(np.concatenate(ways) <= tolerance))


def _surface(rles: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """Return slice, row and column of the surface voxels of a volume, [n, 3]."""
    boxes = np.array([bbox_xywh(rle) for rle in rles])
    filled = np.flatnonzero(boxes[:, 2] > 0)
    if not filled.size:
        return np.zeros((0, 3))
    first, last = filled[0], filled[-1] + 1
    left, top = boxes[filled, :2].min(axis=0).astype(int)
    right, bottom = (boxes[filled, :2] + boxes[filled, 2:]).max(axis=0).astype(int)
    voxels = np.stack(
        [coco.decode(dict(rle))[top:bottom, left:right] > 0 for rle in rles[first:last]]
    )
    # Voxels beyond the volume count as background.
    outline = voxels & ~np.asarray(ndimage.binary_erosion(voxels))
    return np.asarray(np.argwhere(outline) + np.array([first, top, left], np.float64))
