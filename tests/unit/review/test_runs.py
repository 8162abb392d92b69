"""Label maps as text: without a loss, and damaged text is refused."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from salip_ray.review.runs import pack, unpack

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)


@given(arrays.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 2, 255])))
def test_a_label_map_survives(label_map):
    again = unpack(pack(label_map), label_map.shape, 255)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, label_map)


def test_more_than_255_classes_survive():
    label_map = np.arange(600, dtype=np.uint16).reshape(20, 30)
    again = unpack(pack(label_map), (20, 30), 65_535)
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again, label_map)


def text_of(*numbers):
    raw = np.array(numbers, "<u4").tobytes()
    return base64.b64encode(zlib.compress(raw)).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%%%", "damaged"),
        (base64.b64encode(b"no zlib").decode(), "damaged"),
        (pack(np.zeros((4, 4), np.uint8))[:-4], "damaged"),
        (text_of(), "damaged"),
        (text_of(1, 2, 3), "damaged"),
        (text_of(0, 8), "has 8 pixels, not 4 x 4"),
        (text_of(*[1, 1] * 1000), "damaged or of another size"),
        (text_of(0, 2**32 - 1), "4,294,967,295 pixels"),
        (text_of(256, 16), "has the value 256"),
    ],
)
def test_damaged_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        unpack(text, (4, 4), 255)
