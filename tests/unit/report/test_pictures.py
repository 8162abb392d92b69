"""Pictures stay small, and outlines lie where the masks are."""

from __future__ import annotations

import base64
import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from salip_ray.report.pictures import data_uri, outline, picture_box, picture_size


def drawn(path: str, size: tuple[int, int], fine: int = 4) -> np.ndarray:
    """The inside of an SVG path by the even-odd rule, as a mask of ``size``."""
    rings = [
        np.array([[float(v) for v in point.split()] for point in ring.split("L")])
        for ring in re.findall(r"M([^Z]*)Z", path)
    ]
    big = np.zeros((size[0] * fine, size[1] * fine), np.uint8)
    cv2.fillPoly(big, [np.round(ring * fine - 0.5).astype(np.int32) for ring in rings], 1)
    return cv2.resize(big.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.5


def ring(height, width):
    y, x = np.mgrid[:height, :width]
    r = np.hypot((y - height / 2) / height, (x - width / 2) / width)
    return (r < 0.35) & (r > 0.15)


@pytest.mark.parametrize("shape", [(96, 120), (300, 200), (1500, 1100)])
def test_outline_includes_holes(shape):
    size = picture_size(*shape)
    wanted = cv2.resize(ring(*shape).astype(np.float32), size[::-1]) >= 0.5
    got = drawn(outline(ring(*shape)), size)
    assert (got & wanted).sum() / (got | wanted).sum() > 0.95


def test_empty_mask_has_no_outline():
    assert outline(np.zeros((20, 30), np.bool_)) == ""


def test_outline_of_a_ragged_mask_is_short():
    frayed = np.random.default_rng(0).random((900, 900)) < 0.5
    assert len(outline(frayed)) <= 6_000


def test_picture_is_small_for_any_image():
    noise = np.random.default_rng(0).integers(0, 256, (3000, 2000, 3), dtype=np.uint8)
    for image in (noise, np.zeros((1, 4000, 3), np.uint8)):
        data = base64.b64decode(data_uri(image).partition(",")[2])
        assert len(data) <= 45_000
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "WEBP"
            assert max(picture.size) <= 512


def test_small_image_is_not_enlarged():
    assert picture_size(64, 48) == (64, 48)
    assert picture_size(2048, 1024) == (512, 256)


def test_box_includes_its_last_pixel():
    # The whole of a 100 x 50 working image is the whole of a 200 x 100 picture.
    box = picture_box((0, 0, 49, 99), (100, 50), (200, 100))
    assert box == {"x": "0", "y": "0", "width": "100", "height": "200"}
