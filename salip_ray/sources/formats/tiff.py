"""TIFF: pages of any sample type, by Pillow if they are plain, else by their structure.

Pillow shows pages of up to 8 bits a sample. It misreads or refuses many others (signed and 64-bit
integers, float16 and float64, WhiteIsZero of 16 bits, colour and alpha of more than 8 bits), so
their strips and tiles are unpacked here. What is not read is refused by name.
"""

from __future__ import annotations

import io
import math
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
from salip_ray.sources.formats.tiff_pages import (
    Page,
    byte_page,
    copy_page,
    page_offsets,
    read_page,
)

_NO_COMPRESSION = 1
_BYTE_CODECS = frozenset({5, 8, 32773, 32946, 34925, 50000})  # LZW, deflate, PackBits, LZMA, Zstd
_PILLOW_CODECS = _BYTE_CODECS | {1, 2, 3, 4, 6, 7, 32771, 50001}
_OLD_JPEG = 6
_LOSSY_CODECS = frozenset({6, 7, 34712, 33003, 33005, 34892, 50001, 50002, 22610})
_CODEC_NAMES = {
    6: "old-style JPEG",
    7: "JPEG",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    22610: "JPEG XR",
    50002: "JPEG XL",
    34887: "LERC",
    34676: "SGILOG",
    34677: "SGILOG",
    50001: "WebP",
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    34892: "lossy JPEG",
    32809: "ThunderScan",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PILLOW_COLOURS = frozenset({_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR})
_COLOURS = {4: "transparency mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*"}
_COLOURS |= {32803: "colour filter array", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_KIND_NAMES = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}
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
        if values.ndim == 3 and page.value(tags.PHOTOMETRIC) in {_RGB, _PALETTE, _CMYK}:
            return self._colour(values, page)
        alpha = _alpha(values, page, 1)
        grey = values[..., 0] if values.ndim == 3 else values
        if self._range is None:
            self._range = self._shared_range(grey, alpha)
        shown = to_grey(grey, self._range)
        if page.value(tags.PHOTOMETRIC) == _WHITE_IS_ZERO:
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
        inverted = page.value(tags.PHOTOMETRIC) == _WHITE_IS_ZERO
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
            else _unpack(page, self._config)
        )
        if turn := _TURNS.get(page.value(tags.ORIENTATION, 1)):
            swapped, down, right = turn
            values = values.swapaxes(0, 1) if swapped else values
            values = values[::down, ::right]
        return values

    def _by_pillow(self, page: Page, *, turned: bool = True) -> Pil.Image:
        codec = page.value(tags.COMPRESSION, 1)
        if codec not in _PILLOW_CODECS or page.value(tags.PHOTOMETRIC, 1) not in _PILLOW_COLOURS:
            raise ImageError(f"TIFF of {_describe(page)} is not read")
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
        except Exception:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
            kind = _describe(page)
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
        count = 4 if page.value(tags.PHOTOMETRIC) == _CMYK else 3
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
    planes = page.value(tags.PLANAR, 1) == 2 and page.value(tags.PHOTOMETRIC) == _RGB
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


def _describe(page: Page) -> str:
    """Describe the sample type, colours and compression of a page."""
    bits = "/".join(str(n) for n in sorted(set(page.values(tags.BITS, (1,)))))
    kind = _KIND_NAMES.get(page.value(tags.SAMPLE_FORMAT, 1), "unknown")
    codec = page.value(tags.COMPRESSION, 1)
    named = f", {_CODEC_NAMES.get(codec, f'compression {codec}')}"
    colours = page.value(tags.PHOTOMETRIC, 1)
    shown = f", {_COLOURS[colours]}" if colours in _COLOURS else ""
    return f"{bits}-bit {kind} samples{named if codec != _NO_COMPRESSION else ''}{shown}"


def _unpack(page: Page, config: ImageConfig) -> Values:
    """Return the values of a page of more than 8 bits, signed or float samples."""
    codec, samples = page.value(tags.COMPRESSION, 1), page.value(tags.SAMPLES, 1)
    bits = set(page.values(tags.BITS, (1,)))
    kinds = {_KINDS.get(kind, "") for kind in page.values(tags.SAMPLE_FORMAT, (1,))}
    allowed = {16, 32, 64} if kinds == {"f"} else {8, 16, 32, 64}
    odd = kinds == {"u"} and len(bits) == 1 and max(bits) in range(9, 16)
    colours = page.value(tags.PHOTOMETRIC, 1)
    if (
        len(kinds) != 1
        or len(bits) != 1
        or not ((bits <= allowed and kinds <= {"u", "i", "f"}) or odd)
        or codec not in _BYTE_CODECS | {_NO_COMPRESSION}
        or colours not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK}
        or page.value(tags.FILL_ORDER, 1) != 1
        or samples < {_RGB: 3, _CMYK: 4}.get(colours, 1)
    ):
        raise ImageError(f"TIFF of {_describe(page)} is not read")
    (depth,), (kind,) = bits, kinds
    dtype = np.dtype(np.uint16) if odd else np.dtype(f"{kind}{depth // 8}")
    height, width = page.value(tags.HEIGHT), page.value(tags.WIDTH)
    if height * width * samples * dtype.itemsize > config.max_bytes:
        raise ImageError(
            f"the page has {height * width * samples * dtype.itemsize:,} bytes unpacked, "
            f"above image.max_bytes = {config.max_bytes:,}"
        )
    planes = samples if page.value(tags.PLANAR, 1) == 2 else 1
    segments = page.segments
    if len(segments) % planes:
        raise ImageError("corrupt or truncated: the TIFF page lacks strips or tiles")
    each = len(segments) // planes
    unpacked = [
        _plane(page, segments[n * each : (n + 1) * each], samples // planes, depth, dtype)
        for n in range(planes)
    ]
    values = unpacked[0] if planes == 1 else np.concatenate(unpacked, axis=2)
    if colours == _PALETTE:
        return _through_palette(values[..., 0], page)
    return values[..., 0] if samples == 1 else values


def _plane(
    page: Page, segments: list[bytes], samples: int, depth: int, dtype: np.dtype[Any]
) -> Values:
    """Return one plane [H, W, samples] from its segments."""
    height, width = page.value(tags.HEIGHT), page.value(tags.WIDTH)
    rows, columns = page.segment_size
    if rows < 1 or columns < 1:
        raise ImageError("corrupt or truncated: the TIFF page has tiles without a size")
    row_bytes = math.ceil(columns * samples * depth / 8)
    across = math.ceil(width / columns)
    down = math.ceil(height / rows)
    if len(segments) < across * down:
        raise ImageError("corrupt or truncated: the TIFF page lacks strips or tiles")
    segments = segments[: across * down]
    total = down * rows if page.tiled else height
    if page.value(tags.COMPRESSION, 1) == _NO_COMPRESSION:
        stored = _raw(segments, total, rows, row_bytes, across)
    else:
        stored = _decoded(page, segments, (total, across * row_bytes), (rows, row_bytes))
    lines = stored.reshape(total, across, row_bytes)
    values = _samples(lines, page, columns * samples, depth, dtype)
    values = _unpredicted(values, lines, page, samples)
    return values.reshape(total, across * columns, samples)[:height, :width]


def _raw(
    segments: list[bytes], total: int, rows: int, row_bytes: int, across: int
) -> npt.NDArray[np.uint8]:
    """Return uncompressed segments as bytes [rows, bytes of a row]."""
    parts = []
    for number, segment in enumerate(segments):
        lines = min(rows, total - number // across * rows)
        if len(segment) < lines * row_bytes:
            raise ImageError(
                f"truncated: a strip of the TIFF page has {len(segment):,} bytes, "
                f"{lines * row_bytes:,} are needed"
            )
        part = np.frombuffer(segment, np.uint8, lines * row_bytes)
        parts.append(part.reshape(lines, row_bytes))
    if across == 1:
        return np.concatenate(parts)
    bands = [np.concatenate(parts[n : n + across], 1) for n in range(0, len(parts), across)]
    return np.concatenate(bands)


def _decoded(
    page: Page, segments: list[bytes], size: tuple[int, int], segment: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Return compressed segments as bytes: libtiff decodes them as grey, within their size."""
    data = byte_page(segments, size, segment, page)
    try:
        with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=["TIFF"]) as image:
            return np.asarray(image)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
        raise ImageError(f"corrupt or truncated: TIFF of {_describe(page)}") from None


def _samples(
    lines: npt.NDArray[np.uint8], page: Page, count: int, depth: int, dtype: np.dtype[Any]
) -> Values:
    """Return the samples [rows, segments, count] of lines of bytes, before any predictor."""
    if depth % 8 == 0:
        ordered = np.ascontiguousarray(lines).view(dtype.newbyteorder(page.layout.order))
        return ordered.astype(dtype)
    bits = np.unpackbits(lines, axis=2)[:, :, : count * depth]
    weights = (1 << np.arange(depth - 1, -1, -1)).astype(np.uint16)
    parts = [row.reshape(row.shape[0], count, depth) @ weights for row in bits]
    return np.stack(parts).astype(dtype)


def _unpredicted(values: Values, lines: npt.NDArray[np.uint8], page: Page, samples: int) -> Values:
    """Undo horizontal differencing (2) or that of floats (3)."""
    predictor = page.value(tags.PREDICTOR, 1)
    if predictor == 1 or page.value(tags.COMPRESSION, 1) == _NO_COMPRESSION:
        return values
    shape, size = values.shape, values.dtype.itemsize
    if predictor == 2 and values.dtype.itemsize * 8 in page.values(tags.BITS):
        whole = values.view(np.dtype(f"u{size}")).reshape(*shape[:2], -1, samples)
        summed = np.cumsum(whole, axis=2, dtype=whole.dtype)
        return summed.reshape(shape).view(values.dtype)
    if predictor == 3 and values.dtype.kind == "f":
        bytes_of = lines.reshape(*shape[:2], -1, samples)
        summed = np.cumsum(bytes_of, axis=2, dtype=np.uint8).reshape(*shape[:2], size, -1)
        ordered = np.ascontiguousarray(summed.swapaxes(2, 3))
        return ordered.view(values.dtype.newbyteorder(">")).reshape(shape).astype(values.dtype)
    raise ImageError(f"TIFF of {_describe(page)} with predictor {predictor} is not read")


def _through_palette(indices: Values, page: Page) -> Values:
    """Return the colours [H, W, 3] of palette indices."""
    colours = np.asarray(page.values(tags.COLORMAP), np.uint16)
    if colours.size < 3 or indices.dtype.kind != "u":
        raise ImageError("the TIFF page has no palette")
    table = colours[: colours.size // 3 * 3].reshape(3, -1)
    if int(indices.max(initial=0)) >= table.shape[1]:
        raise ImageError("the TIFF page has values beyond its palette")
    return np.moveaxis(table[:, indices], 0, -1)
