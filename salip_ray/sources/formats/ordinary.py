"""PNG, JPEG and WebP, by Pillow; TIFF files are left to :mod:`salip_ray.sources.formats.tiff`.

EXIF orientation is applied; transparency is composited on black; CMYK and palettes are converted to
RGB; grey is repeated three times; greys of more than 8 bits are scaled as ``image.window`` and
``image.depth`` define. Animations are refused: labelling their first picture would lose the others.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageOps, UnidentifiedImageError

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats import tiff
from salip_ray.sources.formats.intensity import range_of, to_grey, to_rgb
from salip_ray.sources.formats.pillow_images import own_pixel_limit, rgb_of
from salip_ray.sources.formats.stack import Stack, Values, check_frames, check_pixels
from salip_ray.sources.formats.tiff_pages import MAGICS

_FORMATS = ("PNG", "JPEG", "WEBP")
_PREVIEWS = frozenset({"JPEG", "MPO"})  # further pictures of such a file are previews of the first
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY_ALPHA = (16, 4)  # bits and colour type of a PNG header


def read(data: bytes, config: ImageConfig) -> Stack:
    """Open an image file; a TIFF of several pages is a stack of them.

    Raises:
        ImageError: of another format, corrupt, animated, or above a limit.
    """
    if data[:4] in MAGICS:
        return tiff.read(data, config)
    try:
        with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=_FORMATS) as file:
            count = 1 if file.format in _PREVIEWS else getattr(file, "n_frames", 1)
            if count > 1:
                raise ImageError(
                    f"the file is an animation of {count} pages: write a file for each"
                )
            check_frames(count, config)
            check_pixels(*file.size, config)
    except UnidentifiedImageError:
        raise ImageError(
            f"not a PNG, JPEG, TIFF or WebP image (the file begins with {data[:8]!r})"
        ) from None
    except (ImageError, MemoryError):
        raise
    except Exception:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
        raise ImageError("corrupt or truncated: the header of the image cannot be read") from None
    return Stack(
        1, "image", lambda _: _picture(data, config), intensities=lambda _: _intensities(data)
    )


def _picture(data: bytes, config: ImageConfig) -> Image:
    try:
        with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=_FORMATS) as file:
            file.load()
            image = ImageOps.exif_transpose(file)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
        raise ImageError("corrupt or truncated, or of a rare kind") from None
    if data[:8] == _PNG and (data[24], data[25]) == _GREY_ALPHA:
        return _grey_alpha(data, config)
    if not image.mode.startswith("I") and image.mode != "F":
        return rgb_of(image)
    values = np.asarray(image)
    grey = to_grey(values, range_of(values, config))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey = np.where(values == clear, np.uint8(0), grey)
    return to_rgb(grey)


def _intensities(data: bytes) -> Values | None:
    """Return the values of a grey image of more than 8 bits."""
    with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=_FORMATS) as file:
        return np.asarray(file) if file.mode.startswith("I") or file.mode == "F" else None


def _grey_alpha(data: bytes, config: ImageConfig) -> Image:
    """Read a PNG of 16-bit grey and alpha, of which Pillow drops the low bytes."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise ImageError("corrupt or truncated, or of a rare kind")
    grey, alpha = values[..., 0], values[..., -1]
    visible = grey[alpha > 0] if alpha.any() else grey
    shown = to_grey(grey, range_of(visible, config)) * (alpha / 65535.0)
    return to_rgb(np.rint(shown).astype(np.uint8))
