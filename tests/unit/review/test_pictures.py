"""Pictures of a page: their size, and the grey values of deep images."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

from salip_ray.review.pictures import byte_limit, encode, encode_deep
from salip_ray.sources.formats.intensity import to_grey, to_rgb


@pytest.mark.parametrize("count", [1, 200, 2000, 100_000])
def test_pictures_keep_to_their_share_of_the_page(count):
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    limit = byte_limit(count)
    assert len(encode(noise, limit)) * 3 / 4 <= limit + 2
    assert count * limit <= 130_000_000 or limit == 24_000


def intensities(deep):
    """Return the intensities [H, W] in the text of a deep picture."""
    raw = zlib.decompress(base64.b64decode(deep.data))
    high, low = np.frombuffer(raw, np.uint8).reshape(2, deep.height, deep.width).astype(np.uint16)
    return deep.offset + deep.step * np.cumsum(high << 8 | low, axis=1, dtype=np.uint16)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float64])
def test_grey_values_survive(dtype):
    values = np.random.default_rng(0).normal(1000, 300, (50, 60)).astype(dtype)
    deep = encode_deep(values, to_rgb(to_grey(values, (400.0, 1600.0))), 10**6)
    error = 0.5 if dtype == np.float64 else 0
    np.testing.assert_allclose(intensities(deep), values, atol=error)
    assert deep.low == pytest.approx(400, abs=5)
    assert deep.high == pytest.approx(1600, abs=5)


def test_small_floats_have_fine_steps():
    values = np.random.default_rng(0).random((50, 60))
    deep = encode_deep(values, to_rgb(to_grey(values, (0.0, 1.0))), 10**6)
    np.testing.assert_allclose(intensities(deep), values, atol=1e-4)


def test_large_noise_is_made_smaller_and_then_left_out():
    values = np.random.default_rng(0).integers(0, 65536, (1500, 1500)).astype(np.uint16)
    image = to_rgb(to_grey(values, (0.0, 65535.0)))
    assert encode_deep(values, image, 700_000).height == 512
    assert encode_deep(values, image, 20_000) is None


def test_values_without_any_number_are_left_out():
    image = np.zeros((4, 4, 3), np.uint8)
    assert encode_deep(np.full((4, 4), np.nan), image, 10**6) is None
