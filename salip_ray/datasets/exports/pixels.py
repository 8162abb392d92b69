"""Pixels as PNG files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from salip_ray.schema import Image


def image_png(image: Image) -> bytes:
    """Return RGB pixels [H, W, 3] as a PNG: a grey one if the three channels are equal."""
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
    return png(image[..., 0] if grey else image)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return grey [H, W] or RGB [H, W, 3] pixels as a PNG."""
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", np.ascontiguousarray(ordered))
    assert done, "OpenCV encodes any non-empty image"
    return data.tobytes()
