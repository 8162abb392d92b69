"""TIFF: every sample type, layout and colour is right, or refused by name."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.sources.decode import decode, open_stack
from salip_ray.sources.formats.intensity import range_of
from salip_ray.sources.formats.tiff import read_values
from tests.tiff_files import tiff

CONFIG = ImageConfig()
DTYPES = [
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
]
SAMPLES = np.random.default_rng(0)


def values_of(dtype, *shape):
    """Values over most of the range of a type."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return SAMPLES.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return SAMPLES.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def scaled(values, config=CONFIG):
    low, high = range_of(values, config)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_grey_of_any_sample_type(dtype, order):
    grey = values_of(dtype, 30, 41)
    wanted = grey if dtype == "uint8" else scaled(grey)
    for white, shown in ((1, wanted), (0, 255 - wanted)):
        decoded = decode(tiff(grey, photometric=white, order=order), "a.tif", CONFIG)
        assert np.abs(decoded[..., 1] - shown).max() <= 0.51


@pytest.mark.parametrize("layout", [{"rows_per_strip": 7}, {"tile": 16}, {"planar": 2, "tile": 16}])
@pytest.mark.parametrize("packing", [{}, {"compression": 8}, {"compression": 8, "predictor": 2}])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_layouts(layout, packing, order, big):
    for dtype in ("uint8", "uint16", "float32", "int64"):
        colour = values_of(dtype, 30, 41, 3)
        data = tiff(colour, photometric=2, order=order, big=big, **layout, **packing)
        np.testing.assert_array_equal(read_values(data, 0, CONFIG), colour)
    grey = values_of("uint16", 30, 41)
    layout = {name: value for name, value in layout.items() if name != "planar"}
    data = tiff(grey, grey[::-1], order=order, big=big, **layout, **packing)
    np.testing.assert_array_equal(read_values(data, 0, CONFIG), grey)
    np.testing.assert_array_equal(read_values(data, 1, CONFIG), grey[::-1])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [0, 16])
def test_the_predictor_of_floats(dtype, order, tile):
    grey = values_of(dtype, 30, 41)
    data = tiff(grey, compression=8, predictor=3, order=order, tile=tile)
    np.testing.assert_array_equal(read_values(data, 0, CONFIG), grey)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("codec", [5, 8, 32773, 32946])
def test_files_of_another_writer(dtype, codec):
    grey = values_of(dtype, 30, 41)
    good, data = cv2.imencode(".tif", grey, [cv2.IMWRITE_TIFF_COMPRESSION, codec])
    assert good
    np.testing.assert_array_equal(read_values(data.tobytes(), 0, CONFIG), grey)


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_packed_bits(bits):
    grey = SAMPLES.integers(0, 2**bits, (30, 41), np.uint16)
    data = tiff(grey, bits=bits)
    wanted = np.rint(grey / (2.0**bits - 1) * 255) if bits <= 8 else scaled(grey)
    assert np.abs(decode(data, "a.tif", CONFIG)[..., 0] - wanted).max() <= 0.51


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("extra", [None, 0, 1, 2])
def test_colour_with_and_without_alpha(dtype, planar, extra):
    top = np.iinfo(dtype).max
    colour = values_of(dtype, 30, 41, 4)
    if extra == 1:  # premultiplied
        colour[..., :3] = np.minimum(colour[..., :3], colour[..., 3:])
    if extra is None:
        colour = colour[..., :3]
    tags = {} if extra is None else {338: (3, [extra])}
    data = tiff(colour, photometric=2, planar=planar, tags=tags)
    wanted = colour[..., :3] / top * 255
    if extra == 2:
        wanted = wanted * (colour[..., 3:] / top)
    decoded = decode(data, "a.tif", CONFIG)
    assert np.abs(decoded - wanted).max() <= 1.01


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_with_alpha(dtype):
    both = values_of(dtype, 30, 41, 2)
    both[:9, :, 1] = 0
    data = tiff(both, tags={338: (3, [2])})
    grey, alpha = both[..., 0], both[..., 1] / np.iinfo(dtype).max
    low, high = (0, 255) if dtype == "uint8" else range_of(grey[alpha > 0], CONFIG)
    wanted = np.clip((grey - float(low)) / (high - low), 0, 1) * 255 * alpha
    assert np.abs(decode(data, "a.tif", CONFIG)[..., 0] - wanted).max() <= 1.01


def test_grey_with_premultiplied_alpha():
    both = values_of("uint8", 30, 41, 2)
    both[..., 0] = np.minimum(both[..., 0], both[..., 1])
    decoded = decode(tiff(both, tags={338: (3, [1])}), "a.tif", CONFIG)
    assert np.abs(decoded[..., 0].astype(int) - both[..., 0]).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_palettes(dtype):
    count = 2 ** (8 * np.dtype(dtype).itemsize)
    colours = SAMPLES.integers(0, 65536, (3, count), np.uint16)
    indices = values_of(dtype, 30, 41)
    data = tiff(indices, photometric=3, tags={320: (3, colours.ravel().tolist())})
    wanted = np.moveaxis(colours[:, indices], 0, -1) / 65535 * 255
    assert np.abs(decode(data, "a.tif", CONFIG) - wanted).max() <= 1.01


def test_a_window_is_in_the_files_own_values():
    grey = np.array([[-100, 0, 100]], np.int16)
    config = ImageConfig(window=Window(center=0, width=200))
    for white, wanted in ((1, [0, 128, 255]), (0, [255, 127, 0])):
        decoded = decode(tiff(grey, photometric=white), "a.tif", config)[0, :, 0]
        assert decoded.tolist() == wanted


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_orientations(orientation, dtype):
    grey = np.arange(12, dtype=dtype).reshape(3, 4)
    data = tiff(grey, tags={274: (3, [orientation])})
    method = [None, 0, 3, 1, 5, 4, 6, 2][orientation - 1]
    image = Pil.fromarray(grey.astype(np.uint8))
    wanted = np.asarray(image if method is None else image.transpose(method))
    config = ImageConfig(window=Window(center=5.5, width=11))
    decoded = decode(data, "a.tif", config)[..., 0]
    scale = 1 if dtype == "uint8" else 255 / 11
    np.testing.assert_array_equal(decoded, np.rint(wanted * scale))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(np.zeros((4, 4), np.complex64)), "64-bit complex samples is not read"),
        (tiff(np.zeros((4, 4), np.uint32), bits=24), "24-bit unsigned samples is not read"),
        (
            tiff(np.zeros((4, 4), np.uint16), tags={259: (3, [34712])}),
            "16-bit .*, JPEG 2000 is not",
        ),
        (tiff(np.zeros((4, 4), np.uint16), tags={259: (3, [7])}), "16-bit .*, JPEG is not read"),
        (tiff(np.zeros((4, 4), np.uint16), photometric=8), r"CIE L\*a\*b\* is not read"),
        (tiff(np.zeros((4, 4), np.uint16), tags={266: (3, [2])}), "is not read"),
        (
            tiff(np.zeros((4, 4), np.uint8), tags={259: (3, [34712])}),
            "8-bit unsigned samples, JPEG 2000 is not",
        ),
        (tiff(np.zeros((4, 4, 3), np.uint8), photometric=8), r"CIE L\*a\*b\* is not read"),
        (tiff(np.zeros((4, 4, 5), np.uint8), photometric=1), "rare kind"),
        (tiff(np.zeros((64, 64), np.uint16))[:5000], "truncated"),
        (b"II*\0", "no page"),
    ],
)
def test_unsupported_tiff_is_named(data, message):
    with pytest.raises(ImageError, match=message):
        decode(data, "a.tif", CONFIG)


# ------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(("dtype", "side", "count"), [("uint8", 8, 3000), ("uint16", 64, 1500)])
def test_many_pages_take_linear_time(dtype, side, count):
    """Read backwards, and by one range: a walk or a copy for each page would take minutes."""
    ramp = np.arange(side * side).reshape(side, side)
    data = tiff(*[(ramp + n % 100).astype(dtype) for n in range(count)])
    began = time.process_time()
    stack = open_stack(data, "a.tif", CONFIG)
    for index in range(count - 1, -1, -1):
        assert stack.picture(index).shape == (side, side, 3)
    assert time.process_time() - began < 40


def test_a_chain_that_bites_its_tail_ends():
    data = bytearray(tiff(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    second = int.from_bytes(data[first + 2 + 12 * count :][:4], "little")
    link = second + 2 + 12 * count
    data[link : link + 4] = first.to_bytes(4, "little")
    assert open_stack(bytes(data), "a.tif", CONFIG).count == 2


def test_a_page_of_many_samples_is_above_max_bytes():
    tags = {277: (3, [60_000]), 258: (3, [16]), 256: (4, [10_000]), 257: (4, [10_000])}
    data = tiff(np.zeros((4, 4), np.uint16), tags=tags)
    with pytest.raises(ImageError, match=r"above image\.max_bytes"):
        decode(data, "a.tif", CONFIG)


def test_a_deflate_bomb_is_not_unpacked():
    """A strip of a few bytes that inflates to 200 MB holds 16 pixels."""
    bomb = zlib.compress(bytes(200_000_000), 9)
    data = tiff(np.zeros((4, 4), np.uint16), compression=8)
    offset = len(data)
    data = tiff(
        np.zeros((4, 4), np.uint16),
        compression=8,
        tags={273: (4, [offset]), 279: (4, [len(bomb)])},
    )
    assert len(data) == offset
    tracemalloc.start()
    assert not decode(data + bomb, "a.tif", CONFIG).any()
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_pages_share_a_range_as_before():
    deep = [np.full((8, 8), level, np.uint16) for level in (0, 500, 1000)]
    stack = open_stack(tiff(*deep), "a.tif", CONFIG)
    assert [int(stack.picture(index)[0, 0, 0]) for index in (2, 1, 0)] == [255, 128, 0]


def test_png_of_deep_grey_with_alpha():
    """Pillow drops the low bytes, so 12-bit values would be nearly black."""
    _y, x = np.mgrid[:40, :50]
    grey = (x * 80).astype(np.uint16)
    alpha = np.full_like(grey, 65535)
    decoded = decode(_png_grey_alpha(grey, alpha), "a.png", CONFIG)[..., 0]
    assert np.abs(decoded - scaled(grey)).max() <= 0.51


def _png_grey_alpha(grey, alpha):
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    height, width = grey.shape
    both = np.stack([grey, alpha], -1).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in both)
    head = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
