"""PNG, JPEG, TIFF and WebP, by Pillow.

EXIF orientation is applied; transparency is composited on black; CMYK and palettes are converted to
RGB; grey is repeated three times; greys of more than 8 bits (16- and 32-bit integers, floats) are
scaled as ``image.window`` and ``image.depth`` say, the pages of a TIFF by one range. Animations are
refused, as labelling their first picture would lose the others silently.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image as Pil
from PIL import ImageOps, UnidentifiedImageError

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats.intensity import Range, Values, range_of, to_grey, to_rgb
from salip_ray.sources.formats.stack import Stack, check_frames, check_pixels, one_line

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_PIL_LIMIT = threading.Lock()


def read(data: bytes, config: ImageConfig) -> Stack:
    """Open an image file; a TIFF of several pages is a stack of them."""
    try:
        with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=_FORMATS) as file:
            count = getattr(file, "n_frames", 1)
            if file.format == "JPEG" or file.format == "MPO":
                count = 1  # a JPEG with more (MPO) holds previews of the same picture
            if count > 1 and file.format != "TIFF":
                raise ImageError(
                    f"the file is an animation of {count} pages: write a file for each"
                )
            check_frames(count, config)
            check_pixels(*file.size, config)
    except UnidentifiedImageError:
        raise ImageError(
            f"not a PNG, JPEG, TIFF or WebP image (the file begins with {data[:8]!r})"
        ) from None
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
        raise ImageError(f"corrupt or truncated: {one_line(error)}") from None
    pages = _Pages(data, count, config)
    return Stack(count, "page" if count > 1 else "image", pages.picture)


class _Pages:
    """The pages of a file, and the one range of intensities that they share."""

    def __init__(self, data: bytes, count: int, config: ImageConfig) -> None:
        self._data, self._count, self._config = data, count, config
        self._range: Range | None = None

    def picture(self, index: int) -> Image:
        page = self._load(index)
        if not _is_deep(page):
            return _to_rgb(page)
        if self._range is None:
            self._range = self._shared_range(page)
        return to_rgb(to_grey(np.asarray(page), self._range))

    def _shared_range(self, page: Pil.Image) -> Range:
        if self._count == 1:
            return range_of(np.asarray(page), self._config)
        values: list[Values] = []
        room = self._config.max_bytes  # many pages may share the bytes of one
        for index in range(self._count):
            if _is_deep(other := self._load(index)):
                values.append(np.asarray(other).ravel())
                room -= values[-1].nbytes
            if room < 0:
                raise ImageError(
                    f"its {self._count} pages have more bytes unpacked than "
                    f"image.max_bytes = {self._config.max_bytes:,}"
                )
        return range_of(np.concatenate(values), self._config)

    def _load(self, index: int) -> Pil.Image:
        try:
            with own_pixel_limit(), Pil.open(io.BytesIO(self._data), formats=_FORMATS) as file:
                if self._count > 1:
                    file.seek(index)
                check_pixels(*file.size, self._config)
                file.load()
                return ImageOps.exif_transpose(file)
        except ImageError:
            raise
        except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
            raise ImageError(f"corrupt or truncated: {one_line(error)}") from None


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """Let ``max_pixels`` decide: Pillow's own limit is global and lower than ours."""
    with _PIL_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no reason to say anything
        before, Pil.MAX_IMAGE_PIXELS = Pil.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Pil.MAX_IMAGE_PIXELS = before


def _is_deep(image: Pil.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _to_rgb(image: Pil.Image) -> Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Pil.new("RGBA", image.size, (0, 0, 0, 255))
        image = Pil.alpha_composite(black, image)
    return np.array(image.convert("RGB"), dtype=np.uint8, order="C")
