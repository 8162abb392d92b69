"""Pictures of a review page: small enough that thousands fit into one file."""

from __future__ import annotations

import base64
import io
import math

from PIL import Image as Pil

from salip_ray.cascade.geometry import to_working
from salip_ray.schema import Image

_PAGE_BYTES = 120_000_000  # of all pictures: a browser opens a page of this size in seconds
_LARGEST, _SMALLEST = 400_000, 24_000  # bytes of a picture
_LONG_SIDE = 1600  # pixels
_PIXELS_PER_BYTE = 8  # of a grey picture with some noise
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
