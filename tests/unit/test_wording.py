"""Numbers in messages have the right plural."""

from __future__ import annotations

import pytest

from salip_ray.wording import counted


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1234, "1,234 images")],
)
def test_regular_nouns_get_an_s_unless_there_is_one(number, expected):
    assert counted(number, "image") == expected


def test_irregular_plural_is_used_as_given():
    assert counted(1, "entry", "entries") == "1 entry"
    assert counted(3, "entry", "entries") == "3 entries"
