"""Changes of good files: many kinds of damage, and harmless ones."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tests.chaos.originals import family, gzipped, originals


@dataclass(frozen=True)
class Sample:
    """A file to decode: its name, its bytes, and whether it must give the original's pixels."""

    name: str
    data: bytes
    kind: str  # of mutation; "control" and "harmless ..." must give the original's pixels
    original: str

    @property
    def must_decode(self) -> bool:
        """Return True if the change is harmless."""
        return self.kind == "control" or self.kind.startswith("harmless")


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.randrange(1, 9)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def _lose(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 200)]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randrange(1, 200)]
    return data


def _zero(data: bytearray, rng: random.Random) -> bytearray:
    start, length = rng.randrange(len(data)), rng.randrange(1, 64)
    data[start : start + length] = bytes(len(data[start : start + length]))
    return data


def _extreme(data: bytearray, rng: random.Random) -> bytearray:
    """A length or a size of the header as large as it can be."""
    start = rng.randrange(min(len(data) - 4, 80))
    data[start : start + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"])
    return data


def _huge(data: bytearray, rng: random.Random) -> bytearray:
    """A file that says it is enormous, and is well-formed otherwise: a decompression bomb."""
    huge = rng.choice([1 << 30, 100_000, 0xFFFF, 0x7FFF])
    if data[:4] == b"\x89PNG":
        header = b"IHDR" + struct.pack(">II", huge, rng.choice([huge, 9])) + bytes(data[24:29])
        data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    elif data[128:132] == b"DICM":
        for element in (0x10, 0x11):  # Rows, Columns
            at = data.find(struct.pack("<HH", 0x28, element) + b"US\2\0")
            if at >= 0 and rng.random() < 0.7:
                struct.pack_into("<H", data, at + 8, huge & 0xFFFF)
        if (at := data.find(struct.pack("<HH", 0x28, 8) + b"IS\2\0")) >= 0:
            data[at + 6 : at + 10] = b"\6\0" + b"999999"
    elif data[:2] == b"\x1f\x8b":
        inner = _huge(bytearray(gzip.decompress(bytes(data))), rng)
        # Behind the header nothing but zeros, a thousand to one.
        return bytearray(gzipped(bytes(inner[:600]))) if huge < 1 << 20 else bytearray(_bomb())
    elif data[:4] in (b"\x5c\1\0\0", b"\x1c\2\0\0"):
        first = data[:1] == b"\x5c"
        form, start, step = ("<h", 42, 2) if first else ("<q", 24, 8)
        for axis in range(3):
            if rng.random() < 0.6:
                size = min(huge, 0x7FFF) if first else huge << rng.randrange(0, 30)
                struct.pack_into(form, data, start + axis * step, size)
    else:
        return _extreme(data, rng)
    return data


@cache
def _bomb() -> bytes:
    """A volume whose gzip unpacks to 100 MB."""
    header = gzip.decompress(originals()["volume.nii.gz"])[:352]
    return gzipped(header + bytes(100_000_000))


def _splice(data: bytearray, rng: random.Random) -> bytearray:
    other = rng.choice(list(originals().values()))
    return data[: rng.randrange(len(data))] + bytearray(other[rng.randrange(len(other)) :])


def _noise(data: bytearray, rng: random.Random) -> bytearray:
    return bytearray(rng.randbytes(rng.randrange(0, 300)))


def _mostly_noise(data: bytearray, rng: random.Random) -> bytearray:
    return data[:16] + bytearray(rng.randbytes(rng.randrange(0, 300)))


MUTATIONS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "flip": _flip,
    "cut": _cut,
    "lose": _lose,
    "repeat": _repeat,
    "zero": _zero,
    "extreme": _extreme,
    "huge": _huge,
    "splice": _splice,
    "noise": _noise,
    "mostly noise": _mostly_noise,
}


def _trailing(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Bytes behind the end; in DICOM as the standard has it."""
    more = rng.randbytes(2 * rng.randrange(1, 20))
    if family(name) != "dicom":
        return name, data + more
    form = "<HHI" if name == "implicit.dcm" else "<HH2s2xI"
    kind = () if name == "implicit.dcm" else (b"OB",)
    return name, data + struct.pack(form, 0xFFFC, 0xFFFC, *kind, len(more)) + more


def _comment(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Text where a format has room for it, else trailing bytes."""
    text = bytes(rng.randrange(97, 123) for _ in range(20))
    if name.endswith(".png"):
        chunk = b"tEXt" + b"Comment\0" + text
        packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return name, data[:33] + packed + data[33:]
    if name.endswith((".jpg", ".jpeg")):
        return name, data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]
    if name.endswith(".dcm"):  # its preamble may hold anything
        return name, text + data[20:]
    if name.endswith(".nii"):
        at = 148 if data[:1] == b"\x5c" else 240  # descrip
        return name, data[:at] + text + data[at + 20 :]
    if name.endswith(".nii.gz"):
        return name, gzipped(_comment(name.removesuffix(".gz"), gzip.decompress(data), rng)[1])
    return _trailing(name, data, rng)


def _other_suffix(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The name of another format, where the bytes say which it is."""
    stem = name.partition(".")[0]
    if family(name) == "nifti":
        return f"{stem}.{rng.choice(['nii', 'nii.gz'])}", data
    several = "frames" in stem or "pages" in stem  # which only a right suffix has looked for
    return name if several else f"{stem}.{rng.choice(['png', 'jpg', 'tif', 'webp'])}", data


HARMLESS = {"trailing": _trailing, "comment": _comment, "suffix": _other_suffix}


def mutate(rng: random.Random) -> Sample:
    """A file: one in ten unchanged, one in ten harmlessly changed, the rest mutated."""
    name = rng.choice(sorted(originals()))
    data = originals()[name]
    chance = rng.random()
    if chance < 0.1:
        return Sample(name, data, "control", name)
    if chance < 0.2:
        kind = rng.choice(sorted(HARMLESS))
        changed, more = HARMLESS[kind](name, data, rng)
        return Sample(changed, more, f"harmless {kind}", name)
    kind = rng.choice(sorted(MUTATIONS))
    mutated = bytes(MUTATIONS[kind](bytearray(data), rng))
    return Sample(name, mutated, kind, name)
