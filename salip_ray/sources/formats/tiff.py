"""TIFF: pages of any sample type, by Pillow if they are plain, else by their structure.

Pillow shows pages of up to 8 bits a sample. It misreads or refuses many others (signed and 64-bit
integers, float16 and float64, WhiteIsZero of 16 bits, colour and alpha of more than 8 bits), so
:mod:`~salip_ray.sources.formats.tiff_unpack` unpacks their strips and tiles. Pages of other kinds
are refused by name.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from PIL import ImageOps

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats import tiff_pages as tags
from salip_ray.sources.formats.intensity import Range, Values, range_of, to_grey, to_rgb
from salip_ray.sources.formats.pillow_images import own_pixel_limit, rgb_of
from salip_ray.sources.formats.stack import Stack, check_pixels
from salip_ray.sources.formats.tiff_codes import (
    BLACK_IS_ZERO,
    BYTE_CODECS,
    CMYK,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    describe,
)
from salip_ray.sources.formats.tiff_pages import Page, copy_page, page_offsets, read_page
from salip_ray.sources.formats.tiff_unpack import unpack

_PILLOW_CODECS = BYTE_CODECS | {1, 2, 3, 4, 6, 7, 32771, 50001}
_OLD_JPEG = 6
_LOSSY_CODECS = frozenset({6, 7, 34712, 33003, 33005, 34892, 50001, 50002, 22610})
_PILLOW_COLOURS = frozenset({WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR})
_ASSOCIATED, _UNASSOCIATED = 1, 2  # alpha
_TURNS = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}


def read(data: bytes, config: ImageConfig) -> Stack:
    """Open a TIFF file as its pages.

    Raises:
        ImageError: not TIFF, corrupt, or above a limit.
    """
    offsets = page_offsets(io.BytesIO(data), config)
    pages = _Pages(data, offsets, config)
    pages.check(0)
    kind = "page" if len(offsets) > 1 else "image"
    return Stack(len(offsets), kind, pages.picture, intensities=pages.intensities)


def read_values(data: bytes, index: int, config: ImageConfig) -> Values:
    """Return the stored values of a page: [H, W], or [H, W, samples].

    Raises:
        ImageError: corrupt, of an unknown kind, or without such a page.
    """
    offsets = page_offsets(io.BytesIO(data), config)
    return _Pages(data, offsets, config).values(index)


@dataclass(frozen=True)
class PageKind:
    """Properties of a page that class ids depend on.

    Attributes:
        lossy: its compression does not keep values.
        inverted_labels: WhiteIsZero with more than 8 bits, so that stored values are no ids.
    """

    lossy: bool
    inverted_labels: bool


def page_kinds(data: bytes, config: ImageConfig) -> list[PageKind]:
    """Return the kind of each page.

    Raises:
        ImageError: not TIFF, corrupt, or above a limit.
    """
    pages = (read_page(data, offset) for offset in page_offsets(io.BytesIO(data), config))
    return [
        PageKind(
            lossy=page.value(tags.COMPRESSION, 1) in _LOSSY_CODECS,
            inverted_labels=not _is_plain(page) and page.value(tags.PHOTOMETRIC, 1) == 0,
        )
        for page in pages
    ]


class _Pages:
    """Pages of a file, which share one range of intensities."""

    def __init__(self, data: bytes, offsets: list[int], config: ImageConfig) -> None:
        self._data, self._offsets, self._config = data, offsets, config
        self._range: Range | None = None

    def picture(self, index: int) -> Image:
        page = self.check(index)
        if _is_plain(page):
            return rgb_of(self._by_pillow(page))
        values = self.values(index)
        if values.ndim == 3 and page.value(tags.PHOTOMETRIC) in {RGB, PALETTE, CMYK}:
            return self._colour(values, page)
        alpha = _alpha(values, page, 1)
        grey = values[..., 0] if values.ndim == 3 else values
        if self._range is None:
            self._range = self._shared_range(grey, alpha)
        shown = to_grey(grey, self._range)
        if page.value(tags.PHOTOMETRIC) == WHITE_IS_ZERO:
            shown = 255 - shown
        if alpha is not None:
            shown = np.rint(shown * alpha).astype(np.uint8)
        return to_rgb(shown)

    def intensities(self, index: int) -> Values | None:
        """Return the grey values of a page of more than 8 bits, the brighter the larger."""
        page = self.check(index)
        if _is_plain(page):
            return None
        values = self.values(index)
        if values.ndim == 3:
            return None
        inverted = page.value(tags.PHOTOMETRIC) == WHITE_IS_ZERO
        return -values.astype(np.float64) if inverted else values

    def check(self, index: int) -> Page:
        """Return a page whose size is within the limits."""
        page = read_page(self._data, self._offsets[index])
        check_pixels(page.value(tags.WIDTH), page.value(tags.HEIGHT), self._config)
        return page

    def values(self, index: int) -> Values:
        page = self.check(index)
        values = (
            np.asarray(self._by_pillow(page, turned=False))
            if _is_plain(page)
            else unpack(page, self._config)
        )
        if turn := _TURNS.get(page.value(tags.ORIENTATION, 1)):
            swapped, down, right = turn
            values = values.swapaxes(0, 1) if swapped else values
            values = values[::down, ::right]
        return values

    def _by_pillow(self, page: Page, *, turned: bool = True) -> Pil.Image:
        codec = page.value(tags.COMPRESSION, 1)
        if codec not in _PILLOW_CODECS or page.value(tags.PHOTOMETRIC, 1) not in _PILLOW_COLOURS:
            raise ImageError(f"TIFF of {describe(page)} is not read")
        if len(self._offsets) > 1 and codec == _OLD_JPEG:
            raise ImageError("pages of old-style JPEG are not read from a TIFF file of several")
        alone = len(self._offsets) == 1 and not page.layout.big
        data = self._data if alone else copy_page(page)
        try:
            with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=["TIFF"]) as image:
                image.load()
                return ImageOps.exif_transpose(image) if turned else image
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  (Pillow's plugins raise many types)
            kind = describe(page)
            raise ImageError(f"corrupt or truncated TIFF, or of a rare kind ({kind})") from None

    def _shared_range(self, grey: Values, alpha: npt.NDArray[Any] | None) -> Range:
        if len(self._offsets) == 1:
            return range_of(_opaque(grey, alpha), self._config)
        values: list[Values] = []
        remaining = self._config.max_bytes  # many pages may share the bytes of one
        for index in range(len(self._offsets)):
            page = self.check(index)
            if _is_plain(page) or page.value(tags.PHOTOMETRIC) not in {0, 1}:
                continue
            other = self.values(index)
            first = other[..., 0] if other.ndim == 3 else other
            values.append(_opaque(first, _alpha(other, page, 1)).ravel())
            remaining -= values[-1].nbytes
            if remaining < 0:
                raise ImageError(
                    f"its {len(self._offsets)} pages have more bytes unpacked than "
                    f"image.max_bytes = {self._config.max_bytes:,}"
                )
        return range_of(np.concatenate(values), self._config)

    def _colour(self, values: Values, page: Page) -> Image:
        count = 4 if page.value(tags.PHOTOMETRIC) == CMYK else 3
        colour = values[..., :count]
        if values.dtype.kind == "u":
            limits: Range = (0.0, float(np.iinfo(values.dtype).max))
        else:
            limits = range_of(colour, self._config)
        shown = to_grey(colour, limits)
        if count == 4:
            return np.array(Pil.fromarray(shown, "CMYK").convert("RGB"), np.uint8, order="C")
        alpha = _alpha(values, page, count)
        if alpha is not None:
            shown = np.rint(shown * alpha[..., None]).astype(np.uint8)
        return np.ascontiguousarray(shown)


def _is_plain(page: Page) -> bool:
    """Return True if Pillow shows a page correctly: unsigned samples of up to 8 bits."""
    formats = set(page.values(tags.SAMPLE_FORMAT, (1,)))
    if max(page.values(tags.BITS, (1,))) > 8 or not formats <= {1, 4}:
        return False
    planes = page.value(tags.PLANAR, 1) == 2 and page.value(tags.PHOTOMETRIC) == RGB
    whole = set(page.values(tags.BITS, (1,))) == {8} and tags.EXTRA_SAMPLES in page.tags
    return not (planes and whole)  # Pillow knows no planes of colour and other extra samples


def _alpha(values: Values, page: Page, colours: int) -> npt.NDArray[np.float64] | None:
    """Return how opaque each pixel is, 0 to 1; None if nothing is to be composited on black."""
    extra = page.values(tags.EXTRA_SAMPLES)
    if values.ndim < 3 or _UNASSOCIATED not in extra or colours + len(extra) > values.shape[2]:
        return None
    alpha = values[..., colours + extra.index(_UNASSOCIATED)].astype(np.float64)
    if values.dtype.kind in "ui":
        alpha /= float(np.iinfo(values.dtype).max)
    return np.clip(np.nan_to_num(alpha), 0, 1)


def _opaque(values: Values, alpha: npt.NDArray[np.float64] | None) -> Values:
    if alpha is None or not (alpha > 0).any():
        return values
    return np.asarray(values[alpha > 0])
