"""Place the prompts of an image on its pixels, and refuse those that do not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Box, Given, Points, Size
from salip_ray.sources.coco_masks import decode_mask
from salip_ray.sources.formats.stack import Plane
from salip_ray.sources.prompts.files import GivenBox

_MOST_POINTS = 1000  # of an object: SAM compares each with all others


def boxes_in_image(
    boxes: Sequence[GivenBox],
    size: Size,
    config: ImageConfig | None = None,
    *,
    noun: str = "prompts",
) -> list[tuple[str, Given]]:
    """Return class, and box, points or mask, of each prompt.

    Boxes are xyxy in pixels, inclusive, and cut at the border.

    Args:
        boxes: of one image, or points.
        size: its height and width.
        config: its ``max_bytes`` bounds the masks of all boxes together.
        noun: what they are called in messages.

    Raises:
        ImageError: a box or point lies outside of the image, a box has no area, or a prompt is of
            an image of another size; or there are too many.
    """
    height, width = size
    require_memory(len(boxes), size, config or ImageConfig(), noun)
    placed: list[tuple[str, Given]] = []
    for number, given in enumerate(boxes, start=1):
        if given.size is not None and given.size != size:
            raise ImageError(
                f"its {noun} are of an image of {given.size[1]} x {given.size[0]} pixels, but it "
                f"has {width} x {height}: give the boxes of this image"
            )
        if given.rle is not None:
            mask = decode_mask(given.rle)
            if mask.shape != size or not mask.any():
                raise ImageError(
                    f"{noun[:-1]} {number} ({given.label}) has no pixel in the image of "
                    f"{width} x {height} pixels"
                )
            placed.append((str(given.label), mask))
            continue
        if given.points is not None:
            _require_points(given.points, f"{noun[:-1]} {number} ({given.label})", size)
            placed.append((str(given.label), given.points))
            continue
        x0, y0, x1, y1 = given.in_pixels(size)
        shown = f"{noun[:-1]} {number} ({given.label}: {x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 < x0 or y1 < y0:
            raise ImageError(f"{shown} is no box: give x0, y0, x1, y1 with x0 <= x1 and y0 <= y1")
        if x1 < 0 or y1 < 0 or x0 > width - 1 or y0 > height - 1:
            raise ImageError(f"{shown} lies outside of the image of {width} x {height} pixels")
        box: Box = max(0.0, x0), max(0.0, y0), min(width - 1.0, x1), min(height - 1.0, y1)
        placed.append((str(given.label), box))
    return placed


def require_memory(count: int, size: Size, config: ImageConfig, noun: str = "prompts") -> None:
    """Raise ImageError if the masks of so many prompts do not fit in ``image.max_bytes``."""
    height, width = size
    needed, limit = count * height * width, config.max_bytes
    if needed > limit:
        raise ImageError(
            f"{count:,} {noun} for {width} x {height} pixels need {needed:,} bytes of masks, above "
            f"image.max_bytes = {limit:,}: cut the image into tiles, or raise the limit"
        )


def require_same_plane(own: Plane | None, image: Plane | None, size: Size) -> None:
    """Raise ImageError if a mask of ``size`` lies more than a pixel from its image."""
    if own is None or image is None:
        return
    corners, expected = (np.reshape(plane, (3, 3)) for plane in (own, image))
    sides = np.linalg.norm(expected[1:] - expected[0], axis=1)
    pixel = (sides / np.maximum((size[1] - 1, size[0] - 1), 1)).max()
    apart = float(np.linalg.norm(corners - expected, axis=1).max())
    if apart > pixel:
        raise ImageError(
            f"its segmentation lies {apart:.1f} mm from it in the patient: resample the "
            "segmentation on the grid of the image"
        )


def _require_points(points: Points, shown: str, size: Size) -> None:
    height, width = size
    count = len(points.inside) + len(points.outside)
    if count > _MOST_POINTS:
        raise ImageError(f"{shown} has {count:,} points, more than {_MOST_POINTS:,}: give a box")
    for x, y in (*points.inside, *points.outside):
        if not (0 <= x < width and 0 <= y < height):  # also if one is NaN
            raise ImageError(
                f"{shown} has the point {x:g}, {y:g}, which is not in the image of "
                f"{width} x {height} pixels"
            )
