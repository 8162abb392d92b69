"""Pictures of a review page: small enough that thousands fit into one file.

A picture is an 8-bit WebP, as the label was made from it. An image of more than 8 bits also has its
grey values, if they are small enough, so that level and window show what 8 bits lose.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as Pil

from salip_ray.cascade.geometry import to_working
from salip_ray.schema import Image
from salip_ray.sources.formats.stack import Values

_PAGE_BYTES = 120_000_000  # of all pictures: a browser opens a page of this size in seconds
_LARGEST, _SMALLEST = 400_000, 24_000  # bytes of a picture
_LONG_SIDE = 1600  # pixels
_PIXELS_PER_BYTE = 8  # of a grey picture with some noise
_DEEP_SIDES = (1024, 512, 256)  # long sides of grey values, pixels; the first that is small enough
_STEPS = 65_535  # of a grey value
_QUALITIES = (88, 75, 60, 40)


def byte_limit(count: int) -> int:
    """Return the most bytes of a picture on a page of ``count`` images."""
    return max(_SMALLEST, min(_LARGEST, _PAGE_BYTES // max(1, count)))


def encode(image: Image, limit: int) -> str:
    """Return an image, made smaller if need be, as a WebP in base64.

    Only the picture loses detail, never the label map.

    Args:
        image: RGB [H, W, 3].
        limit: the most bytes.
    """
    side = min(_LONG_SIDE, math.isqrt(limit * _PIXELS_PER_BYTE), max(image.shape[:2]))
    while True:
        picture = Pil.fromarray(to_working(image, side))
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=quality, method=3)
            data = buffer.getvalue()
            if len(data) <= limit:
                return base64.b64encode(data).decode("ascii")
        side //= 2  # noise, which nothing compresses


@dataclass(frozen=True)
class DeepPicture:
    """Grey values of an image as 16-bit steps.

    Attributes:
        height: of the values; ``width`` likewise.
        offset: the intensity of step 0.
        step: the intensity from step to step.
        low: intensity that is black in the 8-bit picture; ``high`` is white.
        least: smallest intensity of note; ``largest`` likewise.
        data: by rows, each step as the difference to the one on its left, modulo 65,536: first all
            high bytes, then all low bytes; compressed with zlib, in base64.
    """

    height: int
    width: int
    offset: float
    step: float
    low: float
    high: float
    least: float
    largest: float
    data: str


def encode_deep(values: Values, image: Image, limit: int) -> DeepPicture | None:
    """Return the grey values of an image, made smaller if need be, or None if they are too large.

    Args:
        values: intensities [H, W].
        image: the 8-bit picture of them, RGB [H, W, 3].
        limit: the most bytes.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return None
    wide = np.where(finite, values, values[finite].min()).astype(np.float32)
    low, high = _shown_range(wide, image[..., 0])
    least, largest = (float(value) for value in np.percentile(wide, (0.05, 99.95)))
    offset, span = float(wide.min()), float(wide.max() - wide.min())
    whole = values.dtype.kind in "iu" or bool((np.rint(wide) == wide).all())
    step = 1.0 if whole and span <= _STEPS else max(span, 1e-6) / _STEPS
    for side in _DEEP_SIDES:
        scale = min(1.0, side / max(wide.shape))
        height, width = (max(1, round(length * scale)) for length in wide.shape)
        small = cv2.resize(wide, (width, height), interpolation=cv2.INTER_AREA)
        steps = np.clip(np.rint((small - offset) / step), 0, _STEPS).astype(np.uint16)
        turns = np.diff(steps, axis=1, prepend=np.uint16(0))
        packed = zlib.compress(
            (turns >> 8).astype(np.uint8).tobytes() + turns.astype(np.uint8).tobytes()
        )
        if len(packed) <= limit:
            data = base64.b64encode(packed).decode("ascii")
            return DeepPicture(height, width, offset, step, low, high, least, largest, data)
    return None


def _shown_range(values: Values, grey: Values) -> tuple[float, float]:
    """Return the intensities that are black and white in a picture."""
    black, white = values[grey == 0], values[grey == 255]
    low = float(black.max() if black.size else values.min())
    high = float(white.min() if white.size else values.max())
    return (low, high) if low < high else (float(values.min()), float(values.max()))
