"""TIFF files of any layout, written from arrays by the specification."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def tiff(
    *pages: np.ndarray,
    photometric: int = 1,
    order: str = "<",
    big: bool = False,
    compression: int = 1,
    predictor: int = 1,
    planar: int = 1,
    rows_per_strip: int = 0,
    tile: int = 0,
    bits: int = 0,
    tags: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:
    """Return a TIFF file with a page for each array [H, W] or [H, W, samples].

    ``compression`` is 1 (none) or 8 (deflate); ``bits`` packs unsigned samples; ``tags`` holds type
    and values of further tags by number.
    """
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HHQ", 8, 0, 0) if big else bytes(4)
    parts, at, links = [head], len(head), [8 if big else 4]
    starts = []
    for array in pages:
        values = array if array.ndim == 3 else array[..., None]
        height, width, samples = values.shape
        planes = [values[..., n : n + 1] for n in range(samples)] if planar == 2 else [values]
        segments = [
            _encoded(part, order, compression, predictor, bits)
            for plane in planes
            for part in _parts(plane, rows_per_strip, tile)
        ]
        offsets = []
        for segment in segments:
            offsets.append(at)
            parts.append(segment)
            at += len(segment)
        pad = -at % 8
        parts.append(bytes(pad))
        at += pad
        depth = bits or array.dtype.itemsize * 8
        kind = {"u": 1, "i": 2, "f": 3, "c": 6}[array.dtype.kind]
        entries = {
            256: (4, [width]),
            257: (4, [height]),
            258: (3, [depth] * samples),
            259: (3, [compression]),
            262: (3, [photometric]),
            277: (3, [samples]),
            284: (3, [planar]),
            317: (3, [predictor]),
            339: (3, [kind] * samples),
            **({322: (4, [tile]), 323: (4, [tile])} if tile else {}),
            **({} if tile else {278: (4, [rows_per_strip or height])}),
            324 if tile else 273: (4, offsets),
            325 if tile else 279: (4, [len(segment) for segment in segments]),
            **(tags or {}),
        }
        starts.append(at)
        block, link = _directory(entries, at, order, big)
        links.append(at + link)
        parts.append(block)
        at += len(block)
    data = bytearray(b"".join(parts))
    for link, start in zip(links, [*starts, 0], strict=True):
        raw = struct.pack(f"{order}{'Q' if big else 'I'}", start)
        data[link : link + len(raw)] = raw
    return bytes(data)


def _parts(plane, rows_per_strip, tile):
    height, width, _ = plane.shape
    if not tile:
        step = rows_per_strip or height
        return [plane[top : top + step] for top in range(0, height, step)]
    padded = np.zeros(
        (-(-height // tile) * tile, -(-width // tile) * tile, plane.shape[2]), plane.dtype
    )
    padded[:height, :width] = plane
    return [
        padded[top : top + tile, left : left + tile]
        for top in range(0, padded.shape[0], tile)
        for left in range(0, padded.shape[1], tile)
    ]


def _encoded(part, order, compression, predictor, bits):
    size = part.dtype.itemsize
    if predictor == 2:
        whole = part.view(f"u{size}")
        part = np.concatenate([whole[:, :1], np.diff(whole, axis=1)], axis=1).astype(whole.dtype)
    if predictor == 3:
        rows, columns, samples = part.shape
        raw = part.astype(part.dtype.newbyteorder(">")).tobytes()
        split = np.frombuffer(raw, np.uint8).reshape(rows, columns * samples, size).swapaxes(1, 2)
        lines = split.reshape(rows, -1, samples)
        data = np.concatenate([lines[:, :1], np.diff(lines, axis=1)], axis=1).tobytes()
    elif bits:
        planes = (part.reshape(part.shape[0], -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
        data = np.packbits(planes.reshape(part.shape[0], -1).astype(np.uint8), axis=1).tobytes()
    else:
        data = part.astype(part.dtype.newbyteorder(order)).tobytes()
    return zlib.compress(data) if compression == 8 else data


def _directory(entries, at, order, big):
    sizes, codes = {1: 1, 3: 2, 4: 4}, {1: "B", 3: "H", 4: "I"}
    width, pointer = (20, "Q") if big else (12, "I")
    inline = 8 if big else 4
    head = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
    rest = at + len(head) + width * len(entries) + inline
    block, far = head, b""
    for tag, (kind, values) in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(values)}{codes[kind]}", *values)
        block += struct.pack(f"{order}HH{pointer}", tag, kind, len(values))
        if len(raw) <= inline:
            block += raw.ljust(inline, b"\0")
        else:
            block += struct.pack(f"{order}{pointer}", rest + len(far))
            far += raw + bytes(len(raw) % 2)
        assert len(raw) == sizes[kind] * len(values)
    return block + bytes(inline) + far, len(block)
