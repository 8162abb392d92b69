"""Codes of TIFF tags, and a description of a page in words."""

from __future__ import annotations

from salip_ray.sources.formats import tiff_pages as tags
from salip_ray.sources.formats.tiff_pages import Page

NO_COMPRESSION = 1
BYTE_CODECS = frozenset({5, 8, 32773, 32946, 34925, 50000})  # LZW, deflate, PackBits, LZMA, Zstd
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6

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
_COLOURS = {4: "transparency mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*"}
_COLOURS |= {32803: "colour filter array", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}
_KIND_NAMES = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}


def describe(page: Page) -> str:
    """Describe the sample type, colours and compression of a page."""
    bits = "/".join(str(n) for n in sorted(set(page.values(tags.BITS, (1,)))))
    kind = _KIND_NAMES.get(page.value(tags.SAMPLE_FORMAT, 1), "unknown")
    codec = page.value(tags.COMPRESSION, 1)
    named = f", {_CODEC_NAMES.get(codec, f'compression {codec}')}"
    colours = page.value(tags.PHOTOMETRIC, 1)
    shown = f", {_COLOURS[colours]}" if colours in _COLOURS else ""
    return f"{bits}-bit {kind} samples{named if codec != NO_COMPRESSION else ''}{shown}"
