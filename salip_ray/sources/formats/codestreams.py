"""Headers of JPEG, JPEG-LS and JPEG 2000 codestreams: what a decoder would unpack.

Decoders trust the codestream, so a few kilobytes may claim gigabytes of pixels, whatever Rows and
Columns are. The header is read before any decoder is.
"""

from __future__ import annotations

from dataclasses import dataclass

_J2K = b"\xff\x4f\xff\x51"  # start of codestream, then the SIZ segment
_JPEG = b"\xff\xd8"
_NEAR = 1 << 12  # bytes within which the codestream of a JP2 file begins
#: Start-of-frame markers of JPEG (all but DHT, JPG and DAC) and of JPEG-LS.
_FRAMES = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


@dataclass(frozen=True)
class Codestream:
    """The header of a codestream.

    Attributes:
        columns: width in pixels.
        rows: height in pixels.
        samples: components of a pixel.
        bits: precision of a sample.
        kind: JPEG, JPEG-LS or JPEG 2000.
        lossy_12_bit: True for baseline or extended JPEG of 12 bits, which few decoders read.
    """

    columns: int
    rows: int
    samples: int
    bits: int
    kind: str
    lossy_12_bit: bool = False


def read_codestream(data: bytes) -> Codestream | None:
    """Read the header of an encoded frame; None if it is of no kind that is known here."""
    start = data[:_NEAR].find(_J2K)
    if start >= 0:
        return _jpeg_2000(data[start + len(_J2K) : start + len(_J2K) + 64])
    return _jpeg(data) if data[:2] == _JPEG else None


def _jpeg_2000(size: bytes) -> Codestream | None:
    if len(size) < 37:
        return None
    right, lower, left, upper = (int.from_bytes(size[at : at + 4], "big") for at in (4, 8, 12, 16))
    samples = int.from_bytes(size[36:38], "big")
    bits = (size[38] & 0x7F) + 1 if len(size) > 38 else 0
    return Codestream(right - left, lower - upper, samples, bits, "JPEG 2000")


def _jpeg(data: bytes) -> Codestream | None:
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            bits, samples = data[at + 4], data[at + 9]
            rows, columns = (int.from_bytes(data[at + n : at + n + 2], "big") for n in (5, 7))
            kind = "JPEG-LS" if marker == 0xF7 else "JPEG"
            return Codestream(columns, rows, samples, bits, kind, marker == 0xC1 and bits > 8)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
