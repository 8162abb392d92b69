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
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.sources.expand import expand
from salip_ray.sources.listing import LISTING_SCHEMA, Listing, list_images
from salip_ray.sources.locations import image_id
from tests.dicom_series import write_slice


def listing(uris, etag="e", size=1, address=None):
    rows = [{"uri": uri, "size": size, "etag": etag, "address": address} for uri in uris]
    return Listing(pa.Table.from_pylist(rows, schema=LISTING_SCHEMA))


def test_rows_are_sorted_and_cut_into_shards():
    manifest = make_manifest(listing(["/c", "/a", "/b"]), rows_per_shard=2)
    assert manifest.table.schema == TODO_SCHEMA
    assert manifest.frozen.schema == MANIFEST_SCHEMA
    assert manifest.table["uri"].to_pylist() == ["/a", "/b", "/c"]
    assert manifest.table["image_id"].to_pylist() == [image_id(uri) for uri in ("/a", "/b", "/c")]
    assert manifest.table["shard"].to_pylist() == [0, 0, 1]
    assert manifest.table["seq"].to_pylist() == [0, 1, 0]
    assert (manifest.n_images, manifest.n_shards) == (3, 2)
    assert manifest.sizes.tolist() == [2, 1]


def test_repeated_uri_is_labelled_once():
    manifest = make_manifest(listing(["/b", "/a", "/b", "/b"]), 10)
    assert manifest.table["uri"].to_pylist() == ["/a", "/b"]
    assert manifest.duplicates == 2


def test_addresses_are_not_frozen():
    manifest = make_manifest(listing(["https://h/a"], address="https://h/a?sig=s"), 10)
    assert manifest.table["address"].to_pylist() == ["https://h/a?sig=s"]
    assert "address" not in manifest.frozen.column_names
    assert (
        manifest.digest
        == make_manifest(listing(["https://h/a"], address="https://h/a?sig=t"), 10).digest
    )


@given(
    uris=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60),
    rows_per_shard=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_image_once_whatever_the_order(uris, rows_per_shard, seed):
    manifest = make_manifest(listing(uris), rows_per_shard)
    shuffled = random.Random(seed).sample(uris, len(uris))
    assert make_manifest(listing(shuffled), rows_per_shard).table.equals(manifest.table)
    uris_back = manifest.table["uri"].to_pylist()
    assert sorted(uris_back, key=str.encode) == uris_back
    assert set(uris_back) == set(uris)
    assert len(uris_back) == len(set(uris_back)) == manifest.n_images
    assert manifest.n_images == len(uris) - manifest.duplicates
    sizes = manifest.sizes.tolist()
    shards = manifest.table["shard"].to_pylist()
    assert sizes == [shards.count(shard) for shard in range(manifest.n_shards)]


@given(rows=st.integers(1, 40), per_shard=st.integers(1, 7), done=st.sets(st.integers(0, 45)))
def test_todo_has_the_rows_of_uncommitted_shards(rows, per_shard, done):
    manifest = make_manifest(listing([f"/{n}" for n in range(rows)]), per_shard)
    todo = manifest.todo(done)
    assert set(todo["shard"].to_pylist()) == set(range(manifest.n_shards)) - done
    uncommitted = set(range(manifest.n_shards)) - done
    assert todo.num_rows == sum(manifest.sizes[shard] for shard in uncommitted)
    # Only the last block of a strict re-cut may be short: so may only the last shard.
    shards = sorted(set(todo["shard"].to_pylist()))
    assert all(manifest.sizes[shard] == per_shard for shard in shards[:-1])


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
    manifest = extend_manifest(before.frozen, now)
    assert manifest.frozen.slice(0, before.n_images).equals(before.frozen)
    assert manifest.digest == now.digest == manifest_digest(manifest.frozen, per_shard)
    added = manifest.frozen.slice(before.n_images)
    assert added["uri"].to_pylist() == [f"/{n:02d}" for n in sorted(new - old)]
    assert all(shard >= before.n_shards for shard in added["shard"].to_pylist())
    # A resume finds the same plan by the frozen manifest and the grown input.
    assert with_frozen_shards(manifest.frozen, now).table.equals(manifest.table)
    for shard in range(manifest.n_shards):
        rows = [row for row in manifest.table.to_pylist() if row["shard"] == shard]
        assert [row["seq"] for row in rows] == list(range(manifest.sizes[shard]))
    assert int(manifest.sizes.sum()) == manifest.n_images == len(old | new)


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
    manifest = extend_manifest(two.frozen, three)  # above all others: none moves
    assert manifest.frozen["slice"].to_pylist() == [0, 1, 2]
    with pytest.raises(
        ResumeError, match=r"renumber 1 labelled image \(.* slice 2 of volume \w+, is slice 3 "
    ):
        extend_manifest(manifest.frozen, planned(between=25.0))


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
    manifest = make_manifest(listing([f"/{n}" for n in range(7)]), 3)
    assert manifest.todo([0]).num_rows == 4
