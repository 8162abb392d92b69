"""Manifests: the same input always gives the same shards."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salip_ray.config import load_config
from salip_ray.errors import ResumeError
from salip_ray.output.growth import compare, extend_manifest
from salip_ray.output.manifest import (
    PADDING,
    TODO_SCHEMA,
    align_to_blocks,
    make_manifest,
    manifest_digest,
    with_frozen_shards,
)
from salip_ray.pipeline.expand import expand
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.sources.listing import LISTING_SCHEMA, Listing, list_images
from salip_ray.sources.locations import image_id
from tests.dicom_series import write_slice


def listing(uris, etag="e", size=1, address=None):
    rows = [{"uri": uri, "size": size, "etag": etag, "address": address} for uri in uris]
    return Listing(pa.Table.from_pylist(rows, schema=LISTING_SCHEMA))


def test_rows_are_sorted_and_cut_into_shards():
    plan = make_manifest(listing(["/c", "/a", "/b"]), rows_per_shard=2)
    assert plan.table.schema == TODO_SCHEMA
    assert plan.frozen.schema == MANIFEST_SCHEMA
    assert plan.table["uri"].to_pylist() == ["/a", "/b", "/c"]
    assert plan.table["image_id"].to_pylist() == [image_id(uri) for uri in ("/a", "/b", "/c")]
    assert plan.table["shard"].to_pylist() == [0, 0, 1]
    assert plan.table["seq"].to_pylist() == [0, 1, 0]
    assert (plan.n_images, plan.n_shards) == (3, 2)
    assert plan.sizes.tolist() == [2, 1]


def test_repeated_uri_is_labelled_once():
    plan = make_manifest(listing(["/b", "/a", "/b", "/b"]), 10)
    assert plan.table["uri"].to_pylist() == ["/a", "/b"]
    assert plan.duplicates == 2


def test_addresses_are_not_frozen():
    plan = make_manifest(listing(["https://h/a"], address="https://h/a?sig=s"), 10)
    assert plan.table["address"].to_pylist() == ["https://h/a?sig=s"]
    assert "address" not in plan.frozen.column_names
    assert (
        plan.digest
        == make_manifest(listing(["https://h/a"], address="https://h/a?sig=t"), 10).digest
    )


@given(
    uris=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60),
    rows_per_shard=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_image_once_whatever_the_order(uris, rows_per_shard, seed):
    plan = make_manifest(listing(uris), rows_per_shard)
    shuffled = random.Random(seed).sample(uris, len(uris))
    assert make_manifest(listing(shuffled), rows_per_shard).table.equals(plan.table)
    uris_back = plan.table["uri"].to_pylist()
    assert sorted(uris_back, key=str.encode) == uris_back
    assert set(uris_back) == set(uris)
    assert len(uris_back) == len(set(uris_back)) == plan.n_images == len(uris) - plan.duplicates
    sizes = plan.sizes.tolist()
    assert sizes == [plan.table["shard"].to_pylist().count(shard) for shard in range(plan.n_shards)]


@given(rows=st.integers(1, 40), per_shard=st.integers(1, 7), done=st.sets(st.integers(0, 45)))
def test_todo_has_the_rows_of_uncommitted_shards(rows, per_shard, done):
    plan = make_manifest(listing([f"/{n}" for n in range(rows)]), per_shard)
    todo = plan.todo(done)
    assert set(todo["shard"].to_pylist()) == set(range(plan.n_shards)) - done
    assert todo.num_rows == sum(plan.sizes[s] for s in range(plan.n_shards) if s not in done)
    # Only the last block of a strict re-cut may be short: so may only the last shard.
    shards = sorted(set(todo["shard"].to_pylist()))
    assert all(plan.sizes[shard] == per_shard for shard in shards[:-1])


@pytest.mark.parametrize(
    "other",
    [
        listing(["/a", "/c"]),
        listing(["/a"]),
        listing(["/a", "/b"], etag="f"),
        listing(["/a", "/b"], size=2),
    ],
)
def test_digest_depends_on_every_change(other):
    assert make_manifest(listing(["/a", "/b"]), 2).digest != make_manifest(other, 2).digest
    assert (
        make_manifest(listing(["/a", "/b"]), 3).digest
        != make_manifest(listing(["/a", "/b"]), 2).digest
    )


def test_change_is_described_in_words():
    before = make_manifest(listing(["/a", "/b", "/c"]), 2).frozen
    now = make_manifest(listing(["/b", "/c", "/d", "/e"]), 2).frozen
    assert str(compare(before, now)) == "2 images added, 1 image removed"
    altered = make_manifest(listing(["/a", "/b", "/c"], etag=None), 2).frozen
    assert str(compare(before, altered)) == "3 images altered"
    grown = make_manifest(listing(["/a", "/b", "/c", "/d"]), 2).frozen
    assert compare(before, grown).is_growth
    assert not compare(before, now).is_growth
    assert not compare(before, before).is_growth


@given(
    old=st.sets(st.integers(0, 60), min_size=1),
    new=st.sets(st.integers(0, 60), min_size=1),
    per_shard=st.integers(1, 7),
)
def test_extension_adds_new_shards_after_the_old_ones(old, new, per_shard):
    before = make_manifest(listing([f"/{n:02d}" for n in old]), per_shard)
    now = make_manifest(listing([f"/{n:02d}" for n in old | new]), per_shard)
    plan = extend_manifest(before.frozen, now)
    assert plan.frozen.slice(0, before.n_images).equals(before.frozen)
    assert plan.digest == now.digest == manifest_digest(plan.frozen, per_shard)
    added = plan.frozen.slice(before.n_images)
    assert added["uri"].to_pylist() == [f"/{n:02d}" for n in sorted(new - old)]
    assert all(shard >= before.n_shards for shard in added["shard"].to_pylist())
    # A resume finds the same plan by the frozen manifest and the grown input.
    assert with_frozen_shards(plan.frozen, now).table.equals(plan.table)
    for shard in range(plan.n_shards):
        rows = [row for row in plan.table.to_pylist() if row["shard"] == shard]
        assert [row["seq"] for row in rows] == list(range(plan.sizes[shard]))
    assert int(plan.sizes.sum()) == plan.n_images == len(old | new)


def test_extension_that_renumbers_slices_is_refused(tmp_path):
    def planned(**positions):
        for name, position in positions.items():
            write_slice(tmp_path / f"{name}.dcm", np.zeros((4, 5), np.int16), position)
        return make_manifest(expand(list_images(tmp_path), load_config("lungs"))[0], 4)

    alone = planned(b=10.0).frozen
    two = planned(c=20.0)
    with pytest.raises(
        ResumeError, match=r"renumber 1 labelled image \(.*was in no volume, is slice 0 of"
    ):
        extend_manifest(alone, two)
    three = planned(d=30.0)
    plan = extend_manifest(two.frozen, three)  # above all others: none moves
    assert plan.frozen["slice"].to_pylist() == [0, 1, 2]
    with pytest.raises(
        ResumeError, match=r"renumber 1 labelled image \(.* slice 2 of volume \w+, is slice 3 "
    ):
        extend_manifest(plan.frozen, planned(between=25.0))


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_cutting_aligned_rows_cuts_between_shards(sizes):
    rows = [
        {"image_id": f"{shard}-{seq}", "uri": "/", "shard": shard, "seq": seq}
        for shard, size in enumerate(sizes)
        for seq in range(size)
    ]
    aligned = align_to_blocks(pa.Table.from_pylist(rows, schema=TODO_SCHEMA), 5).to_pylist()
    blocks = [aligned[start : start + 5] for start in range(0, len(aligned), 5)]
    assert all(len({row["shard"] for row in block}) == 1 for block in blocks)
    rows_back = [row for row in aligned if row["seq"] != PADDING]
    assert sorted((row["shard"], row["seq"]) for row in rows_back) == [
        (row["shard"], row["seq"]) for row in rows
    ]


def test_short_last_shard_needs_no_padding():
    plan = make_manifest(listing([f"/{n}" for n in range(7)]), 3)
    assert plan.todo([0]).num_rows == 4
