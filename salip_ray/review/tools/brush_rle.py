"""Label Studio's run-length encoding of brush masks: runs of RGBA bytes, packed by bits.

32 bits are the number of values, 5 bits the size of a value minus 1, and 4 times 4 bits the sizes
of run lengths minus 1. Then follow runs: 1 bit says if one value is repeated or each is given, 2
bits choose the size of the run length, then come the length minus 1, and the value or values.
"""

from __future__ import annotations

import numpy as np

from salip_ray.schema import Mask

_CHANNELS = 4
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 1 << 16


def encode(mask: Mask) -> list[int]:
    """Return the bytes of a mask [H, W]."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}", f"{8 - 1:05b}"]
    bits += [f"{size - 1:04b}" for size in _LENGTH_BITS]
    for is_set, length in zip(flat[starts].tolist(), lengths.tolist(), strict=True):
        value = "11111111" if is_set else "00000000"
        while length:
            part = min(length, _LONGEST)
            choice = next(n for n, size in enumerate(_LENGTH_BITS) if part <= 1 << size)
            bits.append(f"1{choice:02b}{part - 1:0{_LENGTH_BITS[choice]}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8))


def decode(data: list[int], height: int, width: int) -> Mask:
    """Return the mask [H, W] in bytes of an encoding: the pixels that are more than half opaque.

    Raises:
        ValueError: the bytes are damaged, or of another size.
    """
    raw = bytes(data)
    bits = f"{int.from_bytes(raw):0{8 * len(raw)}b}" if raw else ""
    position = 0

    def take(size: int) -> int:
        nonlocal position
        text = bits[position : position + size]
        if len(text) < size:
            raise ValueError("its brush mask is cut off")
        position += size
        return int(text, 2)

    count, value_bits = take(32), take(5) + 1
    length_bits = [take(4) + 1 for _ in range(4)]
    if count != _CHANNELS * height * width:
        raise ValueError(f"its brush mask has {count:,} values, not those of {height} x {width}")
    values = np.zeros(count, np.int64)
    at = 0
    while at < count:
        repeats = take(1)
        length = take(length_bits[take(2)]) + 1
        if at + length > count:
            raise ValueError("its brush mask is damaged")
        if repeats:
            values[at : at + length] = take(value_bits)
        else:
            values[at : at + length] = [take(value_bits) for _ in range(length)]
        at += length
    opaque: Mask = values.reshape(height, width, _CHANNELS)[..., 3] > 127
    return opaque
