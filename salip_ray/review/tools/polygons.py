"""Masks as polygons that keep every pixel, in the convention of OpenCV.

The vertices of a polygon are pixels, (x, y). Its pixels are those that ``cv2.fillPoly`` sets: the
vertices, the lines between them, and what they enclose. X-AnyLabeling fills polygons in this way.
A hole belongs to the polygon of its component: the outline goes to it and back along a row of
pixels of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.schema import Mask, Size

_Points = npt.NDArray[Any]  # (x, y) of each vertex, [N, 2]
_FEWEST = 3  # vertices; tools drop shapes of fewer


def outlines(mask: Mask) -> list[list[list[int]]]:
    """Return a polygon for each component of a mask [H, W]: its vertices as [x, y]."""
    contours, links = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    points: list[_Points] = [contour.reshape(-1, 2) for contour in contours]
    parents = [] if links is None else links[0, :, 3].tolist()
    polygons = []
    for number, outer in enumerate(points):
        if parents[number] < 0:
            holes = [points[i] for i, parent in enumerate(parents) if parent == number]
            polygon = outer
            # From left to right: the row to the left of a hole ends at one that is joined already.
            for hole in sorted(holes, key=lambda each: int(each[:, 0].min())):
                polygon = _joined(polygon, hole, mask)
            polygons.append(_corners(polygon).tolist())
    return polygons


def filled(points: Sequence[Sequence[float]], size: Size) -> Mask:
    """Return the mask [H, W] of a polygon.

    Args:
        points: vertices as (x, y), rounded to whole pixels.
        size: height and width of the mask.

    Raises:
        ValueError: a vertex is not a pair of finite numbers.
    """
    vertices: npt.NDArray[Any] = np.array(points, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or not np.isfinite(vertices).all():
        raise ValueError("a polygon has a vertex that is not a pair of numbers")
    # Far away is as good as just outside, and fits into 32 bits.
    limit = 2 * max(size)
    whole = np.rint(vertices).clip(-limit, limit).astype(np.int32)
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [whole], 1)
    return canvas.astype(np.bool_)


def _joined(polygon: _Points, hole: _Points, mask: Mask) -> _Points:
    """Return a polygon whose outline also goes around a hole."""
    start = int(hole[:, 0].argmin())
    x, y = hole[start].tolist()
    while x > 0 and mask[y, x - 1]:
        x -= 1
    at = int(np.flatnonzero((polygon == (x, y)).all(1))[0])
    around = np.concatenate((hole[start:], hole[: start + 1]))
    return np.concatenate((polygon[: at + 1], around, polygon[at:]))


def _corners(polygon: _Points) -> _Points:
    """Return the vertices of a closed polygon at which its direction changes; at least three."""
    steps = np.sign(np.roll(polygon, -1, 0) - polygon)
    moves = steps.any(1)
    if moves.any():
        polygon, steps = polygon[moves], steps[moves]
        polygon = polygon[(steps != np.roll(steps, 1, 0)).any(1)]
    missing = max(0, _FEWEST - len(polygon))
    return np.concatenate((polygon, np.repeat(polygon[-1:], missing, 0)))
