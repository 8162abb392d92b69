"""Unpack the strips and tiles of a TIFF page that Pillow misreads or refuses."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.formats import tiff_pages as tags
from salip_ray.sources.formats.intensity import Values
from salip_ray.sources.formats.pillow_images import own_pixel_limit
from salip_ray.sources.formats.tiff_codes import (
    BLACK_IS_ZERO,
    BYTE_CODECS,
    CMYK,
    NO_COMPRESSION,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    describe,
)
from salip_ray.sources.formats.tiff_pages import Page, byte_page

_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}


def unpack(page: Page, config: ImageConfig) -> Values:
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
        or codec not in BYTE_CODECS | {NO_COMPRESSION}
        or colours not in {WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK}
        or page.value(tags.FILL_ORDER, 1) != 1
        or samples < {RGB: 3, CMYK: 4}.get(colours, 1)
    ):
        raise ImageError(f"TIFF of {describe(page)} is not read")
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
    if colours == PALETTE:
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
    if page.value(tags.COMPRESSION, 1) == NO_COMPRESSION:
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
    except Exception:  # noqa: BLE001  (Pillow's plugins raise many types)
        raise ImageError(f"corrupt or truncated: TIFF of {describe(page)}") from None


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
    if predictor == 1 or page.value(tags.COMPRESSION, 1) == NO_COMPRESSION:
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
    raise ImageError(f"TIFF of {describe(page)} with predictor {predictor} is not read")


def _through_palette(indices: Values, page: Page) -> Values:
    """Return the colours [H, W, 3] of palette indices."""
    colours = np.asarray(page.values(tags.COLORMAP), np.uint16)
    if colours.size < 3 or indices.dtype.kind != "u":
        raise ImageError("the TIFF page has no palette")
    table = colours[: colours.size // 3 * 3].reshape(3, -1)
    if int(indices.max(initial=0)) >= table.shape[1]:
        raise ImageError("the TIFF page has values beyond its palette")
    return np.moveaxis(table[:, indices], 0, -1)
