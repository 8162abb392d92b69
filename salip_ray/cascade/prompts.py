"""The prompts of step 5: a box, and by options of ``refine`` points and shifted boxes.

A job that was given points prompts with them instead of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.cascade.geometry import mask_window
from salip_ray.config import RefineConfig
from salip_ray.schema import Box, Candidate, Mask, Point, Size

_SEED = 0  # of the jitter: the same for every prompt, so that labels are reproducible


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one retrieved candidate, in pixels of the working image.

    Attributes:
        box: xyxy, inclusive; None for a prompt of points only.
        inside: foreground points.
        outside: background points.
    """

    box: Box | None
    inside: tuple[Point, ...] = ()
    outside: tuple[Point, ...] = ()


def prompts_for(
    candidates: Sequence[Candidate], others: Sequence[Candidate], config: RefineConfig
) -> tuple[Prompt, ...]:
    """Return a prompt for each retrieved candidate of a class.

    Args:
        candidates: retrieved for the class; each is background for the others.
        others: retrieved for other classes.
        config: ``centre_point`` and ``negative_points`` are used.
    """
    prompts = []
    background = _Background([*candidates, *others]) if config.negative_points else None
    for own in candidates:
        if own.points is not None:
            prompts.append(Prompt(None, own.points.inside, own.points.outside))
            continue
        inside = (innermost(own.mask),) if config.centre_point else ()
        outside = () if background is None else background.points_outside(own)
        prompts.append(Prompt(own.box, inside, outside))
    return tuple(prompts)


class _Background:
    """The innermost points of candidates; of those apart from a candidate they are computed once.

    A hundred objects have 9,900 pairs, of which nearly all are apart.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates
        self._windows = np.array([mask_window(each.mask) for each in candidates])
        self._points: dict[int, Point | None] = {}

    def points_outside(self, own: Candidate) -> tuple[Point, ...]:
        """Return a point of each other candidate that has pixels outside of ``own``."""
        window = np.array(mask_window(own.mask))
        starts, ends = self._windows[:, :2], self._windows[:, 2:]
        near = np.flatnonzero(((starts < window[2:]) & (window[:2] < ends)).all(axis=1))
        points = []
        for index, rival in enumerate(self.candidates):
            if rival.id == own.id:
                continue
            if index in near and (rival.mask & own.mask).any():
                points.append(_innermost_or_none(rival.mask & ~own.mask))
                continue
            if index not in self._points:
                self._points[index] = _innermost_or_none(rival.mask)
            points.append(self._points[index])
        return tuple(point for point in points if point is not None)


def jittered(box: Box, size: Size, count: int, share: float) -> npt.NDArray[np.float64]:
    """Return the box and ``count`` shifted copies, xyxy [1 + count, 4], within ``size``.

    Each side moves by up to ``share`` of the box's width or height. The shifts are the same for
    every box.
    """
    height, width = size
    x0, y0, x1, y1 = box
    extent = np.array([x1 - x0 + 1, y1 - y0 + 1, x1 - x0 + 1, y1 - y0 + 1])
    moves = np.random.default_rng(_SEED).uniform(-share, share, (count, 4)) * extent
    boxes = np.array(box) + np.vstack([np.zeros(4), moves])
    last = np.array([width - 1, height - 1, width - 1, height - 1])
    boxes[1:] = np.clip(boxes[1:], 0, last)
    return np.asarray(boxes, np.float64)


def _innermost_or_none(mask: Mask) -> Point | None:
    return innermost(mask) if mask.any() else None


def innermost(mask: Mask) -> Point:
    """Return the pixel (x, y) of a non-empty mask farthest from its outline and the border."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(column), float(row)
