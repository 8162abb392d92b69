"""Sizes, masks and boxes: between original and working image, and against a reference.

Candidates, thresholds in pixels and prompt boxes are in pixels of the working image; labels and
references in pixels of the original one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from salip_ray.config import ClassSpec, ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Box, Candidate, Image, Mask, Point, Points, Size


def working_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return ``(height, width)`` of the working image: same aspect, at least 1 pixel per side.

    Rounded like SAM's ``ResizeLongestSide``, so that SAM does not resize a working image whose long
    side is its input size.
    """
    scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def to_working(image: Image, long_side: int) -> Image:
    """Resize an image so that its long side is ``long_side``; return it unchanged if it already is.

    The filter is Pillow's antialiased bilinear one, which SAM uses itself.

    Args:
        image: uint8 RGB, [H, W, 3].
        long_side: pixels.
    """
    height, width = working_size(image.shape[0], image.shape[1], long_side)
    if image.shape[:2] == (height, width):
        return image
    return _resize_antialiased(image, (height, width))


def _resize_antialiased(image: Image, size: Size) -> Image:
    height, width = size
    resized = PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BILINEAR)
    return np.asarray(resized)


def make_working(image: Image, config: ImageConfig) -> Image:
    """Return the working image of an image, by the ``image`` section of a configuration.

    Args:
        image: uint8 RGB, [H, W, 3].
        config: ``long_side``, ``aspect``, ``resample`` and ``channels`` are used.

    Returns:
        uint8 [h, w, 3], RGB or (``channels: bgr``) BGR.
    """
    height, width = working_size_of(image.shape[0], image.shape[1], config)
    if image.shape[:2] != (height, width):
        if config.resample == "bilinear":
            resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            image = resized.astype(np.uint8, copy=False)
        else:
            image = _resize_antialiased(image, (height, width))
    return np.ascontiguousarray(image[..., ::-1]) if config.channels == "bgr" else image


def working_size_of(height: int, width: int, config: ImageConfig) -> Size:
    """Return ``(height, width)`` of the working image of an image of that size."""
    if config.aspect == "square":
        return config.long_side, config.long_side
    return working_size(height, width, config.long_side)


def to_original(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize a working mask to the original ``size`` (height, width), by nearest neighbour."""
    return _resized(mask, size)


def original_mask(candidate: Candidate, size: Size) -> Mask:
    """Return the mask of a candidate on the original image of ``size`` (height, width)."""
    exact = candidate.original
    return to_original(candidate.mask, size) if exact is None else exact


def to_working_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize an original mask to the working ``size`` (height, width), by nearest neighbour."""
    return _resized(mask, size)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    height, width = size
    if mask.shape == size:
        return mask
    resized = cv2.resize(
        mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return resized.astype(np.bool_)


def box_to_working(box: Box, original_size: tuple[int, int], size: tuple[int, int]) -> Box:
    """Convert an inclusive xyxy box from the original image to the working image of ``size``.

    The outline of the covered pixels is scaled, so a box over the whole image covers the whole
    working image. A box that would be smaller than a pixel keeps its first corner.
    """
    x0, y0, x1, y1 = box
    y_scale, x_scale = (w / o for w, o in zip(size, original_size, strict=True))
    left, top = x0 * x_scale, y0 * y_scale
    return left, top, max(left, (x1 + 1) * x_scale - 1), max(top, (y1 + 1) * y_scale - 1)


def points_to_working(points: Points, original_size: Size, size: Size) -> Points:
    """Convert points from the original image to the working image of ``size``, within it."""
    y_scale, x_scale = (w / o for w, o in zip(size, original_size, strict=True))
    height, width = size

    def moved(point: Point) -> Point:
        x, y = (point[0] + 0.5) * x_scale - 0.5, (point[1] + 0.5) * y_scale - 0.5
        return min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)

    return Points(tuple(map(moved, points.inside)), tuple(map(moved, points.outside)))


def check_image(image: Image) -> None:
    """Raise ImageError unless ``image`` is a uint8 RGB array of shape [H, W, 3], not empty."""
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image must be a NumPy array, found {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"the image must have shape [H, W, 3] (RGB), found {list(image.shape)}")
    if image.dtype != np.uint8:
        raise ImageError(f"the image must be uint8 (0 to 255), found {image.dtype}")


def union_of(candidates: Sequence[Candidate], original_size: Size) -> Mask:
    """Return the union of the candidates' masks, bool [H, W] of the original size."""
    union: Mask = np.zeros(original_size, np.bool_)
    for candidate in candidates:
        union |= original_mask(candidate, original_size)
    return union


def mask_window(mask: Mask) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a mask, the ends exclusive; 0 if it is empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def shared_area(one: Candidate, other: Candidate) -> float:
    """Return the share of the smaller one of two candidates that both cover."""
    both = np.count_nonzero(one.mask & other.mask)
    return float(both / max(1, min(one.area, other.area)))


def overlap(one: Mask, other: Mask) -> float:
    """Return the Dice of two masks of one shape; NaN if both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else math.nan


def closest(candidates: Sequence[Candidate], reference: Mask, k: int) -> list[Candidate]:
    """Return up to ``k`` candidates whose union is closest to a reference, by Dice.

    The search is greedy: the best candidate first, then the one that raises the Dice of the union
    most. Of equal candidates the lower id wins.

    Args:
        candidates: masks of the working image.
        reference: bool, of the working size.
        k: how many at most.
    """
    chosen: list[Candidate] = []
    union: Mask = np.zeros_like(reference)
    reached = 0.0
    remaining = sorted(candidates, key=lambda candidate: candidate.id)
    while remaining and len(chosen) < k:
        gains = [overlap(union | candidate.mask, reference) for candidate in remaining]
        best = int(np.argmax(np.nan_to_num(gains)))
        if not gains[best] > reached:
            break
        reached = gains[best]
        chosen.append(remaining.pop(best))
        union |= chosen[-1].mask
    return chosen


MIN_SHARE = 0.005  #: of the image: smaller parts of a reference get no box


def class_references(
    reference: npt.NDArray[np.integer[Any]], classes: Sequence[ClassSpec]
) -> dict[str, Mask]:
    """Return the mask [H, W] of each class in a reference image [H, W].

    With one class, every value above 0 is that class; with several, values are class ids.
    """
    if len(classes) == 1:
        return {classes[0].label: reference > 0}
    return {spec.label: reference == spec.class_id for spec in classes}


def reference_boxes(mask: Mask, min_share: float = MIN_SHARE) -> list[Box]:
    """Return a box (xyxy, inclusive) of each part of a mask that covers ``min_share`` of the image.

    Parts are 8-connected, in the order of their first pixels, row by row.
    """
    _count, _parts, stats, _centres = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    return [
        (float(x), float(y), float(x + width - 1), float(y + height - 1))
        for x, y, width, height, area in stats[1:]  # the first is the background
        if area >= min_share * mask.size
    ]


def component_masks(mask: Mask) -> list[Mask]:
    """Return the parts of a mask [H, W] that :func:`reference_boxes` puts boxes around, as masks.

    If all parts are smaller, the largest is the only one.
    """
    _count, numbers, stats, _centres = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    areas = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
    large = np.flatnonzero(areas >= MIN_SHARE * mask.size)
    if not large.size:
        large = np.argsort(-areas, kind="stable")[:1]
    return [numbers == index + 1 for index in large]


def contour_boxes(mask: Mask, size: Size, count: int = 2) -> list[Box]:
    """Return the boxes of GT-SAM as published: of the leftmost outer contours of a reference.

    The reference is resized bilinearly to the working image; contours of no area are left out.

    Args:
        mask: reference, bool [H, W].
        size: height, width of the working image.
        count: number of boxes at most.

    Returns:
        xyxy, inclusive, on the working image, from left to right.
    """
    height, width = size
    grey = cv2.resize(mask.astype(np.uint8) * 255, (width, height))
    contours, _hierarchy = cv2.findContours(grey, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in sorted(contours, key=lambda each: cv2.boundingRect(each)[0]):
        if cv2.contourArea(contour) > 0:
            x, y, box_width, box_height = cv2.boundingRect(contour)
            boxes.append((float(x), float(y), float(x + box_width - 1), float(y + box_height - 1)))
    return boxes[:count]
