"""The prompts of step 5: a box, and by options of ``refine`` points and shifted boxes.

A job that was given points prompts with them instead of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

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
    for own in candidates:
        if own.points is not None:
            prompts.append(Prompt(None, own.points.inside, own.points.outside))
            continue
        inside = (innermost(own.mask),) if config.centre_point else ()
        rivals = [c for c in (*candidates, *others) if c.id != own.id]
        foreign = [rival.mask & ~own.mask for rival in rivals] if config.negative_points else []
        outside = tuple(innermost(mask) for mask in foreign if mask.any())
        prompts.append(Prompt(own.box, inside, outside))
    return tuple(prompts)


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


def innermost(mask: Mask) -> Point:
    """Return the pixel (x, y) of a non-empty mask farthest from its outline and the border."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(column), float(row)
