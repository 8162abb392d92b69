"""Structure of TIFF files: pages, tags and segments, for classic TIFF and BigTIFF.

Any page is found in constant time after one walk along the chain of directories, and can be copied
into a file of one page for a decoder. Decoders that walk the chain for each page need quadratic
time for a file of many.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Literal

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.formats.stack import check_frames

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
ORIENTATION, SAMPLES, PLANAR, PREDICTOR, COLORMAP = 274, 277, 284, 317, 320
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_COUNTS = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
#: Tags that a copy of a page has: what a decoder needs, nothing that points elsewhere.
_COPIED = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES, PLANAR}
    | {_ROWS_PER_STRIP, PREDICTOR, COLORMAP, EXTRA_SAMPLES, SAMPLE_FORMAT, _TILE_WIDTH}
    | {_TILE_HEIGHT, 292, 293, 332, 347, 529, 530, 531, 532}  # fax, inks, JPEG tables, YCbCr
)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SHORT, _LONG, _UNDEFINED = 3, 4, 7


@dataclass(frozen=True)
class Layout:
    """Byte order and widths of a TIFF file."""

    order: Literal["<", ">"]
    big: bool

    @property
    def head(self) -> int:
        """Size in bytes of the entry count of a directory."""
        return 8 if self.big else 2

    @property
    def entry(self) -> int:
        """Size in bytes of a directory entry."""
        return 20 if self.big else 12

    def number(self, data: bytes, size: int) -> int:
        """Return the unsigned integer at the start of ``data``."""
        return int.from_bytes(data[:size], "little" if self.order == "<" else "big")

    @property
    def pointer(self) -> int:
        """Size in bytes of an offset."""
        return 8 if self.big else 4


@dataclass(frozen=True)
class Page:
    """One directory of a file: ``tags`` holds type, count and bytes by number."""

    data: bytes
    layout: Layout
    tags: Mapping[int, tuple[int, int, bytes]]

    def values(self, tag: int, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Return the whole numbers of a tag."""
        kind, count, raw = self.tags.get(tag, (0, 0, b""))
        if kind not in _CODES or not count:
            return tuple(default)
        return struct.unpack(f"{self.layout.order}{count}{_CODES[kind]}", raw)

    def value(self, tag: int, default: int = 0) -> int:
        """Return the first whole number of a tag."""
        return self.values(tag, (default,))[0]

    @property
    def tiled(self) -> bool:
        """Return True if the segments are tiles, not strips."""
        return _TILE_OFFSETS in self.tags

    @property
    def segment_size(self) -> tuple[int, int]:
        """Rows and columns of a segment."""
        if self.tiled:
            return self.value(_TILE_HEIGHT), self.value(_TILE_WIDTH)
        height = self.value(HEIGHT)
        return min(self.value(_ROWS_PER_STRIP, height) or height, height), self.value(WIDTH)

    @property
    def segments(self) -> list[bytes]:
        """Encoded strips or tiles, plane by plane."""
        offsets = self.values(_TILE_OFFSETS if self.tiled else _STRIP_OFFSETS)
        counts = self.values(_TILE_COUNTS if self.tiled else _STRIP_COUNTS)
        if not offsets or len(counts) not in {0, len(offsets)}:
            raise ImageError("the TIFF page has no strips or tiles")
        if not counts and len(offsets) == 1:
            counts = (len(self.data) - offsets[0],)
        pairs = zip(offsets, counts, strict=True)
        if sum(counts) > len(self.data):
            raise ImageError("corrupt or truncated: the strips of the TIFF page overlap or are cut")
        return [self.data[offset : offset + count] for offset, count in pairs]


def read_layout(head: bytes) -> tuple[Layout, int]:
    """Return the layout of a file and where its first directory is.

    Raises:
        ImageError: not a TIFF file.
    """
    if head[:4] not in MAGICS:
        raise ImageError("not a TIFF file")
    layout = Layout("<" if head[:2] == b"II" else ">", b"+" in head[2:4])
    start = head[8:16] if layout.big else head[4:8]
    return layout, layout.number(start, layout.pointer)


def page_offsets(file: IO[bytes], config: ImageConfig) -> list[int]:
    """Return where the directories of a file are, reading no more than their ends.

    Raises:
        ImageError: not a TIFF file, or of more than ``max_frames`` pages.
    """
    file.seek(0)
    layout, offset = read_layout(file.read(16))
    offsets: dict[int, None] = {}
    while offset and offset not in offsets:
        file.seek(offset)
        head = file.read(layout.head)
        if len(head) < layout.head:
            break
        offsets[offset] = None
        check_frames(len(offsets), config)
        file.seek(offset + layout.head + layout.number(head, layout.head) * layout.entry)
        offset = layout.number(file.read(layout.pointer), layout.pointer)
    if not offsets:
        raise ImageError("corrupt or truncated: the TIFF file has no page")
    return list(offsets)


def read_page(data: bytes, offset: int) -> Page:
    """Read the tags of the directory at an offset.

    Raises:
        ImageError: the directory is cut off.
    """
    layout, _ = read_layout(data[:16])
    return Page(data, layout, dict(_tags(data, layout, offset)))


def _tags(data: bytes, layout: Layout, offset: int) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
    count = layout.number(data[offset : offset + layout.head], layout.head)
    start = offset + layout.head
    if start + count * layout.entry > len(data):
        raise ImageError("corrupt or truncated: a directory of the TIFF file is cut off")
    for at in range(start, start + count * layout.entry, layout.entry):
        tag, kind = (layout.number(data[at + n : at + n + 2], 2) for n in (0, 2))
        number = layout.number(data[at + 4 : at + 4 + layout.pointer], layout.pointer)
        value = at + 4 + layout.pointer
        size = number * _SIZES.get(kind, 0)
        if size > layout.pointer:
            value = layout.number(data[value : value + layout.pointer], layout.pointer)
        raw = data[value : value + size]
        if size and len(raw) == size:
            yield tag, (kind, number, raw)


def copy_page(page: Page) -> bytes:
    """Return a TIFF file of this page alone."""
    tags = {tag: entry for tag, entry in page.tags.items() if tag in _COPIED}
    for tag, (kind, count, _) in list(tags.items()):
        if kind in {16, 17, 18}:
            values = page.values(tag)
            tags[tag] = (_LONG, count, struct.pack(f"{page.layout.order}{count}I", *values))
    return _file(tags, page.segments, page.layout.order, tiled=page.tiled)


def byte_page(
    segments: Sequence[bytes], size: tuple[int, int], segment: tuple[int, int], page: Page
) -> bytes:
    """Return a TIFF file that holds decoded segments of a page as grey bytes.

    Args:
        segments: encoded as in ``page``.
        size: rows, and bytes of a row, of all segments side by side.
        segment: rows, and bytes of a row, of each.
        page: whose compression is used; a predictor is left to the caller.
    """
    order = page.layout.order

    def number(value: int) -> tuple[int, int, bytes]:
        return _LONG, 1, struct.pack(f"{order}I", value)

    tags = {WIDTH: number(size[1]), HEIGHT: number(size[0]), SAMPLES: number(1)}
    for tag, value in ((BITS, 8), (PHOTOMETRIC, 1), (COMPRESSION, page.value(COMPRESSION))):
        tags[tag] = (_SHORT, 1, struct.pack(f"{order}H", value))
    if page.tiled:
        tags |= {_TILE_HEIGHT: number(segment[0]), _TILE_WIDTH: number(segment[1])}
    else:
        tags[_ROWS_PER_STRIP] = number(segment[0])
    return _file(tags, segments, order, tiled=page.tiled)


def _file(
    tags: Mapping[int, tuple[int, int, bytes]],
    segments: Sequence[bytes],
    order: str,
    *,
    tiled: bool,
) -> bytes:
    """Return a classic TIFF file of one page."""
    counts = [len(segment) for segment in segments]
    offsets, at = [], 8
    for count in counts:
        offsets.append(at)
        at += count
    numbers = f"{order}{len(counts)}I"
    entries = {
        **tags,
        _TILE_OFFSETS if tiled else _STRIP_OFFSETS: (
            _LONG,
            len(counts),
            struct.pack(numbers, *offsets),
        ),
        _TILE_COUNTS if tiled else _STRIP_COUNTS: (
            _LONG,
            len(counts),
            struct.pack(numbers, *counts),
        ),
    }
    at += at % 2
    rest = at + 2 + 12 * len(entries) + 4
    directory, far = [struct.pack(f"{order}H", len(entries))], b""
    for tag, (kind, count, raw) in sorted(entries.items()):
        value_or_offset = (
            raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(f"{order}I", rest + len(far))
        )
        far += raw + b"\0" * (len(raw) % 2) if len(raw) > 4 else b""
        directory.append(struct.pack(f"{order}HHI", tag, kind, count) + value_or_offset)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(segments)
    return b"".join(
        [
            mark,
            struct.pack(f"{order}I", at),
            body,
            b"\x00" * (at - 8 - len(body)),
            *directory,
            b"\x00" * 4,
            far,
        ]
    )
