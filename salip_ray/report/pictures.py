"""Small pictures of images, and masks as outlines to draw over them.

An outline is the ``d`` of an SVG path in pixels of the picture. It is sharp at any size, takes a
few hundred bytes, and can be shown and hidden.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

from salip_ray.cascade.geometry import to_working, working_size
from salip_ray.schema import Box, Image, Mask

LONG_SIDE = 512  # pixels of a picture, at most
_BYTES = 45_000  # of a picture, at most, so that a report of any run stays small
_QUALITIES = (80, 65, 50, 35, 20)
_OUTLINE_CHARACTERS = 6_000
_OUTLINES = 200  # of one mask, the longest


def picture_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the picture of an image: never larger than the image."""
    return working_size(height, width, min(LONG_SIDE, max(height, width)))


def data_uri(image: Image) -> str:
    """Return an image, made smaller, as a WebP in a ``data:`` URI."""
    height, width = image.shape[:2]
    small = Pil.fromarray(to_working(image, min(LONG_SIDE, max(height, width))))
    for quality in _QUALITIES:
        data = _webp(small, quality)
        if len(data) <= _BYTES:
            break
    else:  # noise, which nothing compresses
        data = _webp(small.resize((max(1, small.width // 3), max(1, small.height // 3))), 20)
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")


def _webp(image: Pil.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def outline(mask: Mask) -> str:
    """Return the outlines of a mask [H, W], holes included, as an SVG path on its picture.

    Fill it by the even-odd rule. An empty mask gives an empty path. Specks of a few pixels are left
    out, and detail beyond a few thousand characters.
    """
    height, width = picture_size(*mask.shape)
    # Twice as fine as the picture, but not finer than the mask.
    scale = min(2.0, max(mask.shape) / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    contours, _ = cv2.findContours(
        np.pad(shrunk, 1).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    contours = sorted(contours, key=len, reverse=True)[:_OUTLINES]
    path = ""
    for tolerance in (0.6, 1.2, 2.4, 4.8):
        path = "".join(_subpath(c, tolerance, size, (width, height)) for c in contours)
        if len(path) <= _OUTLINE_CHARACTERS:
            return path
    # The longest outlines, whole ones only.
    return path[: path.rfind("Z", 0, _OUTLINE_CHARACTERS) + 1]


def _subpath(
    contour: npt.NDArray[Any],
    tolerance: float,
    size: tuple[int, int],
    picture: tuple[int, int],
) -> str:
    corners = cv2.approxPolyDP(contour, tolerance, closed=True)[:, 0, :]
    if len(corners) < 3:
        return ""
    # Without the padding; the middle of a pixel is half a pixel from its edge.
    points = (corners - 0.5) / np.array(size) * np.array(picture)
    steps = (f"{_short(x)} {_short(y)}" for x, y in points)
    return "M" + "L".join(steps) + "Z"


def picture_box(box: Box, size: tuple[int, int], picture: tuple[int, int]) -> dict[str, str]:
    """Return an inclusive xyxy box on an image of ``size`` as an SVG rectangle on its picture.

    Both sizes are height, width.
    """
    y_scale, x_scale = (p / s for p, s in zip(picture, size, strict=True))
    x0, y0, x1, y1 = box
    return {
        "x": _short(x0 * x_scale),
        "y": _short(y0 * y_scale),
        "width": _short((x1 + 1 - x0) * x_scale),
        "height": _short((y1 + 1 - y0) * y_scale),
    }


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
