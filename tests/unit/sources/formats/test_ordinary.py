"""Every format in, and every way a file can be bad."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.sources.decode import decode, open_stack
from salip_ray.sources.formats.names import stem, suffix

LIMITS = ImageConfig()


def scene(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=2).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Pil.Image) else Pil.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_keep_every_pixel(kind, options):
    decoded = decode(encoded(scene(), kind, **options), f"a.{kind.lower()}", LIMITS)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, scene())


def test_jpeg_is_close():
    decoded = decode(encoded(scene(), "JPEG", quality=95), "a.jpg", LIMITS)
    assert np.abs(decoded.astype(int) - scene()).mean() < 4


def test_bytes_decide_over_a_wrong_suffix():
    np.testing.assert_array_equal(decode(encoded(scene(), "PNG"), "a.jpg", LIMITS), scene())


def test_grey_becomes_three_equal_channels():
    grey = scene()[..., 0]
    decoded = decode(encoded(grey, "PNG"), "a.png", LIMITS)
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_stretched_over_what_it_uses(kind):
    grey = np.tile(np.linspace(1000, 5000, 200), (200, 1)).astype(np.uint16)
    grey[0, 0] = 65535  # a hot pixel must not darken the rest
    decoded = decode(encoded(grey, kind), "a", LIMITS)[..., 0].astype(int)
    assert decoded[5, 0] == 0
    assert decoded[5, -1] == 255
    assert abs(decoded[5, 100] - 128) <= 2
    assert (np.diff(decoded[5]) >= 0).all()


def test_a_few_bright_pixels_of_16_bits_survive():
    grey = np.zeros((100, 100), np.uint16)
    grey[3, 4] = 900
    decoded = decode(encoded(grey, "PNG"), "a.png", LIMITS)[..., 0]
    assert decoded[3, 4] == 255
    assert decoded.sum() == 255


def test_a_constant_16_bit_image_is_black():
    assert not decode(encoded(np.full((9, 9), 700, np.uint16), "PNG"), "a.png", LIMITS).any()


def test_float_tiff_with_holes():
    grey = np.tile(np.linspace(-1, 1, 64, dtype=np.float32), (64, 1))
    grey[0, 0] = np.nan
    decoded = decode(encoded(Pil.fromarray(grey), "TIFF"), "a.tif", LIMITS)[..., 0]
    assert (decoded[1, 0], decoded[1, -1], decoded[0, 0]) == (0, 255, 0)


def test_palette():
    image = Pil.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert decode(encoded(image, "PNG"), "a.png", LIMITS)[0].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_one_bit():
    image = Pil.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    assert decode(encoded(image, "PNG"), "a.png", LIMITS)[0].tolist() == [[255] * 3, [0] * 3]


def test_cmyk():
    image = Pil.new("CMYK", (4, 4), (0, 255, 255, 0))
    red = decode(encoded(image, "TIFF"), "a.tif", LIMITS)[0, 0]
    assert red[0] > 200
    assert red[1:].max() < 60


def test_transparency_is_composited_on_black():
    image = np.zeros((1, 2, 4), np.uint8)
    image[0, 0] = (200, 100, 50, 255)
    image[0, 1] = (200, 100, 50, 0)
    assert decode(encoded(image, "PNG"), "a.png", LIMITS)[0].tolist() == [[200, 100, 50], [0, 0, 0]]


def test_exif_orientation_is_applied():
    exif = Pil.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
    decoded = decode(encoded(scene(40, 60), "TIFF", exif=exif), "a.tif", LIMITS)
    np.testing.assert_array_equal(decoded, np.rot90(scene(40, 60), -1))


# ---------------------------------------------------------------------------------- bad files


def test_zero_bytes():
    with pytest.raises(ImageError, match="empty"):
        decode(b"", "a.png", LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_an_error_never_a_half_grey_image(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    with pytest.raises(ImageError, match=r"truncated|not a PNG"):
        decode(data[: int(len(data) * share)], f"a.{kind.lower()}", LIMITS)


def test_a_flipped_byte_in_a_png_is_an_error():
    data = bytearray(encoded(scene(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="corrupt"):
        decode(bytes(data), "a.png", LIMITS)


def test_text_is_no_image():
    with pytest.raises(ImageError, match=r"not a PNG, JPEG, TIFF or WebP image .*<html>"):
        decode(b"<html>not decoded</html>", "a.png", LIMITS)


def test_format_that_only_pillow_reads_is_refused():
    with pytest.raises(ImageError, match="not a PNG"):
        decode(encoded(scene(), "BMP"), "a.bmp", LIMITS)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_animation_is_refused(kind):
    pages = [Pil.fromarray(scene()), Pil.fromarray(255 - scene())]
    data = encoded(pages[0], kind, save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="2 pages"):
        decode(data, "a", LIMITS)


def test_the_pages_of_a_tiff_are_a_stack():
    pages = [Pil.fromarray(scene()), Pil.fromarray(255 - scene())]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    stack = open_stack(data, "a.tif", LIMITS)
    assert (stack.count, stack.kind) == (2, "page")
    np.testing.assert_array_equal(stack.picture(1), 255 - scene())
    np.testing.assert_array_equal(stack.picture(0), scene())
    with pytest.raises(ImageError, match="holds 2 pages, and one picture"):
        decode(data, "a.tif", LIMITS)


def test_deep_pages_share_one_range():
    deep = [np.full((8, 8), level, np.uint16) for level in (0, 500, 1000)]
    pages = [Pil.fromarray(page) for page in deep]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    stack = open_stack(data, "a.tif", LIMITS)
    assert [int(stack.picture(index)[0, 0, 0]) for index in (2, 1, 0)] == [255, 128, 0]


def test_16_bits_by_their_full_range_or_a_window():
    grey = np.array([[0, 6554, 65535]], np.uint16)
    data = encoded(grey, "PNG")
    full = decode(data, "a.png", ImageConfig(depth="full_range"))[0, :, 0]
    assert full.tolist() == [0, 26, 255]
    window = Window(center=6554, width=100)
    assert decode(data, "a.png", ImageConfig(window=window))[0, :, 0].tolist() == [0, 128, 255]


def test_limits():
    data = encoded(scene(), "PNG")
    with pytest.raises(ImageError, match=r"60 x 40 pixels, above image.max_pixels = 2,399"):
        decode(data, "a.png", ImageConfig(max_pixels=2399))
    with pytest.raises(ImageError, match=r"above image\.max_bytes = 10"):
        decode(data, "a.png", ImageConfig(max_bytes=10))


def test_our_pixel_limit_replaces_pillows(monkeypatch):
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", 100)
    assert decode(encoded(scene(), "PNG"), "a.png", LIMITS).shape == (40, 60, 3)
    assert Pil.MAX_IMAGE_PIXELS == 100


def test_names():
    assert suffix("s3://b/x/A.PNG") == ".png"
    assert suffix("https://h/a.jpg?versionId=1.2") == ".jpg"
    assert suffix("/a/b.c/name") == ""
    assert suffix("/a/v.nii.gz") == ".nii.gz"
    assert stem("/a/v.1.nii.gz") == "v.1"
    assert stem("https://h/a.b.jpg?x=1") == "a.b"
