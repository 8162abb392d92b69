"""Small holes and islands of a mask, found in the part of the image that the mask takes up."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.rows import Mask

_Window = tuple[slice, slice]


def without_small_regions(mask: Mask, min_area: int, *, holes: bool) -> tuple[Mask, bool]:
    """Fill the holes, or drop the islands, of fewer than ``min_area`` pixels.

    The official ``remove_small_regions``, without its sort of all pixels (``np.isin``).

    Returns:
        The mask, and whether it changed. Of islands that are all small the largest stays.
    """
    window = _window(mask)
    n_labels, regions, sizes = _regions(mask[window] ^ holes)
    small = sizes < min_area
    if holes and any(small[label - 1] for label in _cut(regions, window, mask.shape) if label):
        # The background at the window's sides goes on outside: how far matters here.
        window = np.s_[:, :]
        n_labels, regions, sizes = _regions(~mask)
        small = sizes < min_area
    if not small.any():
        return mask, False
    kept = np.zeros(n_labels, dtype=np.bool_)
    if holes:
        kept[0], kept[1:] = True, small
    elif small.all():
        kept[1 + int(np.argmax(sizes))] = True
    else:
        kept[1:] = ~small
    clean = mask.copy()
    clean[window] = kept[regions]
    return clean, True


def _window(mask: Mask) -> _Window:
    """Where a mask is, and a pixel or two more on each side.

    It begins at even places: OpenCV numbers regions by blocks of two pixels, and of two islands of
    one size the first must be the same.
    """
    sides = []
    for axis in (1, 0):
        filled = np.flatnonzero(mask.any(axis=axis))
        first, last = (filled[0], filled[-1]) if len(filled) else (0, 0)
        sides.append(slice(max(0, int(first) - 1) // 2 * 2, int(last) + 2))
    return sides[0], sides[1]


def _regions(mask: Mask) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any]]:
    """The number of labels, the label of each pixel (0 outside), and the area of each label > 0."""
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8
    )
    return n_labels, labels, stats[1:, cv2.CC_STAT_AREA]


def _cut(regions: npt.NDArray[Any], window: _Window, shape: tuple[int, ...]) -> set[int]:
    """The labels at those sides of a window at which the image goes on."""
    sides = []
    for axis, (part, length) in enumerate(zip(window, shape, strict=True)):
        if part.start > 0:
            sides.append(regions.take(0, axis))
        if part.stop < length:
            sides.append(regions.take(-1, axis))
    return set(np.unique(np.concatenate(sides)).tolist()) if sides else set()
