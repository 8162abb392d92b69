"""Pillow's images as RGB, within this package's limits: for PNG, JPEG, WebP and plain TIFF."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image as Pil

from salip_ray.schema import Image
from salip_ray.sources.formats.intensity import to_rgb

_PIL_LIMIT = threading.Lock()


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """Let ``max_pixels`` decide: Pillow's own limit is global and lower."""
    with _PIL_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is not worth a warning
        before, Pil.MAX_IMAGE_PIXELS = Pil.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Pil.MAX_IMAGE_PIXELS = before


def rgb_of(image: Pil.Image) -> Image:
    """Return an image of up to 8 bits as uint8 RGB, with transparency on black."""
    if image.mode == "La":  # premultiplied, from which Pillow converts to nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Pil.new("RGBA", image.size, (0, 0, 0, 255))
        image = Pil.alpha_composite(black, image)
    if image.mode == "L":  # Pillow would take four bytes per pixel more
        return to_rgb(np.asarray(image))
    return np.array(image.convert("RGB"), dtype=np.uint8, order="C")
