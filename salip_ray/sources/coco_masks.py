"""Check the masks of COCO files, which pycocotools reads beyond their end if they are damaged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from salip_ray.schema import Mask, Size

_LONGEST = 7  # characters of one count: more do not fit any image


def coco_rle(segmentation: Any, size: Size) -> dict[str, Any]:
    """Return the RLE of polygons, a list of counts, or compressed counts.

    Args:
        segmentation: of an annotation.
        size: height and width of its image.

    Raises:
        ValueError: it is none of them, or of an image of another size.
    """
    if isinstance(segmentation, Mapping):
        return _from_counts(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has no mask: a polygon or an RLE is needed")
    outlines = [_outline(points, size) for points in segmentation]
    rle = coco.merge(coco.frPyObjects(outlines, *size))
    return {"size": list(size), "counts": rle["counts"].decode("ascii")}


def encode_mask(mask: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the RLE of a mask [H, W]."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: Mapping[str, Any]) -> Mask:
    """Return the mask [H, W] of an RLE that is known to be sound."""
    return np.ascontiguousarray(coco.decode(dict(rle))).astype(np.bool_)


def _from_counts(segmentation: Mapping[str, Any], size: Size) -> dict[str, Any]:
    stated = segmentation.get("size")
    if not isinstance(stated, list) or stated != list(size):
        raise ValueError(f"its segmentation is of {stated}, its image of {list(size)}")
    given = segmentation.get("counts")
    if isinstance(given, str):
        counts = unpack_counts(given)
    elif isinstance(given, list) and all(type(count) is int for count in given):
        counts = given
    else:
        raise ValueError("its counts are neither a text nor a list of whole numbers")
    height, width = size
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"its counts are not of {height * width:,} pixels: the RLE is damaged")
    rle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def unpack_counts(text: str) -> list[int]:
    """Return the counts in COCO's compressed form: five bits a character, as differences.

    Raises:
        ValueError: they are cut off, or have other characters.
    """
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise ValueError("its counts are damaged")
    lasts = np.flatnonzero(codes & 0x20 == 0)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    lengths = lasts - firsts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("its counts are damaged")
    shifts = 5 * (np.arange(codes.size) - np.repeat(firsts, lengths))
    values: npt.NDArray[np.int64] = np.add.reduceat((codes & 0x1F) << shifts, firsts)
    values -= np.where(codes[lasts] & 0x10, 1 << (5 * lengths), 0)
    for start in (1, 2):  # from the fourth count on, each is a difference to the one but last
        values[start::2] = np.cumsum(values[start::2])
    unpacked: list[int] = values.tolist()
    return unpacked


def _outline(points: Any, size: Size) -> Sequence[float]:
    """Return a polygon x, y, x, y, ...; it may reach beyond the image by its size."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise ValueError("it has a polygon that is no list of x, y of 3 points or more")
    try:
        values = [float(value) for value in points]
    except (TypeError, ValueError):
        raise ValueError(f"it has a polygon that is not of numbers: {str(points)[:80]}") from None
    height, width = size
    for value, side in zip(values, itertools.cycle((width, height)), strict=False):
        if not math.isfinite(value) or not -side <= value <= 2 * side:
            raise ValueError(f"it has a polygon far outside of its image: {value:g}")
    return values
