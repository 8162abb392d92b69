"""Groups stay whole, whatever the shares, seeds and sizes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salip_ray.datasets.splits import group_key, split
from salip_ray.errors import ConfigError


@given(
    st.lists(st.integers(0, 12), min_size=12, max_size=80),
    st.integers(0, 5),
    st.floats(0.1, 0.5),
)
def test_every_group_is_in_one_part_and_every_image_once(patients, seed, share):
    uris = [f"/in/p{patient}/{index}.png" for index, patient in enumerate(patients)]
    if len(set(patients)) < 2:
        return
    parts = split(uris, {"train": 1 - share, "val": share}, seed=seed, group_by="folder")
    assert sorted(itertools.chain(*parts.values())) == list(range(len(uris)))
    groups = [{patients[index] for index in indices} for indices in parts.values()]
    assert all(groups)
    assert not groups[0] & groups[1]


def test_single_images_are_split_by_share():
    uris = [f"/in/{index}.png" for index in range(100)]
    parts = split(uris, {"train": 0.7, "val": 0.2, "test": 0.1})
    assert [len(indices) for indices in parts.values()] == [70, 20, 10]


def test_the_order_of_the_images_does_not_matter():
    uris = [f"/in/{index}.png" for index in range(20)]
    one = split(uris, {"a": 0.5, "b": 0.5})
    other = split(uris[::-1], {"a": 0.5, "b": 0.5})
    assert {uris[i] for i in one["a"]} == {uris[::-1][i] for i in other["a"]}


def test_groups_follow_from_uris():
    assert group_key("image")("/in/scan #1.png") == "/in/scan #1.png"
    assert group_key("folder")("/in/ward #2/a.png") == "/in/ward #2"
    member = "zip://patient1/{}.png::/in/x.zip"
    assert {group_key("folder")(member.format(n)) for n in "ab"} == {"zip://patient1::/in/x.zip"}
    assert group_key(r"sub-(\w+?)_")("/in/sub-07_T1.png") == "07"


@pytest.mark.parametrize(
    ("shares", "group_by", "message"),
    [
        ({"a": 0.5, "b": 0.4}, "image", "add up to 1, found 0.9"),
        ({"a": 1.0, "b": 0.0}, "image", "must be above 0"),
        ({"a": 0.5, "b": 0.5}, "folder", "1 group cannot be split into 2"),
        ({"a": 0.5, "b": 0.5}, "(", "not a regular expression"),
        ({"a": 0.5, "b": 0.5}, "patient", "does not match /in/0.png"),
    ],
)
def test_impossible_split_is_explained(shares, group_by, message):
    with pytest.raises(ConfigError) as caught:
        split(["/in/0.png", "/in/1.png"], shares, group_by=group_by)
    assert message in str(caught.value)
