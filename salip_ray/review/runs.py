"""Label maps as compressed text, which a browser reads and writes without a loss.

A label map is a list of runs by rows, ``value, length, value, length, ...``: unsigned 32-bit
integers, little-endian, compressed with zlib, in base64. A browser may alter the pixels of an image
that it reads back from a canvas; it cannot alter these.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np

from salip_ray.output.masks import LabelMap
from salip_ray.schema import Size

_RUN_BYTES = 8


def pack(label_map: LabelMap) -> str:
    """Return a label map [H, W] as text."""
    flat = label_map.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    runs = np.empty((len(starts), 2), "<u4")
    runs[:, 0] = flat[starts]
    runs[:, 1] = np.diff(starts, append=flat.size)
    return base64.b64encode(zlib.compress(runs.tobytes(), 9)).decode("ascii")


def unpack(text: str, size: Size, largest: int) -> LabelMap:
    """Return the label map [H, W] in a text: uint8, or uint16 if ``largest`` needs it.

    Args:
        text: from :func:`pack`, or from the page.
        size: height and width of the map.
        largest: no value may be above it.

    Raises:
        ValueError: the text is damaged, of another size, or has a larger value.
    """
    height, width = size
    try:
        data = base64.b64decode(text, validate=True)
        # No more is unpacked than a map of this size can need.
        inflate = zlib.decompressobj()
        raw = inflate.decompress(data, _RUN_BYTES * height * width + 1)
    except (binascii.Error, zlib.error):
        raise ValueError("its text is damaged") from None
    if not inflate.eof or not raw or len(raw) % _RUN_BYTES:
        raise ValueError("its text is damaged or of another size")
    values, lengths = np.frombuffer(raw, "<u4").reshape(-1, 2).T.astype(np.int64)
    if int(lengths.sum()) != height * width:
        raise ValueError(f"it has {int(lengths.sum()):,} pixels, not {height} x {width}")
    if int(values.max()) > largest:
        raise ValueError(f"it has the value {int(values.max())}")
    label_map = np.repeat(values, lengths).reshape(height, width)
    return label_map.astype(np.uint8) if largest <= 255 else label_map.astype(np.uint16)
