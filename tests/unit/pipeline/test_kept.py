"""Mending a committed shard: new rows in the place of its errors, all else as it was."""

from __future__ import annotations

import json

import pytest

from salip_ray.errors import OutputError
from salip_ray.pipeline.commit import commit_shard
from salip_ray.pipeline.kept import with_kept_rows
from salip_ray.pipeline.store import Store
from tests.unit.pipeline.test_commit import CLASSES, refined, table

FILES = ("shards/part-00002.parquet", "masks/part-00002.tar")


@pytest.fixture
def store(tmp_path):
    """A shard in which the rows 1 and 3 are errors."""
    store = Store(tmp_path / "out")
    rows = [refined(0), refined(1, "error"), refined(2, "empty"), refined(3, "error")]
    commit_shard(store, 2, table(*rows), 4, CLASSES)
    return store


@pytest.fixture
def whole(tmp_path):
    """The same shard, had nothing gone wrong."""
    store = Store(tmp_path / "whole")
    rows = [refined(0), refined(1), refined(2, "empty"), refined(3)]
    commit_shard(store, 2, table(*rows), 4, CLASSES)
    return store


def mend(store, *rows):
    found, before = with_kept_rows(store, 2, table(*rows))
    return commit_shard(store, 2, found, 4, CLASSES, before=before)


def test_a_mended_shard_has_the_bytes_of_one_without_errors(store, whole):
    stats = mend(store, refined(3), refined(1))
    for name in FILES:
        assert store.read(name) == whole.read(name)
    assert stats["status"] == {"empty": 1, "ok": 3}
    assert stats["seconds"]["propose"] == 4.0  # 2 before, 2 now


def test_a_row_that_fails_again_stays_an_error(store):
    before = [store.read(name) for name in FILES]
    mend(store, refined(1, "error"), refined(3, "error"))
    assert [store.read(name) for name in FILES] == before


def test_a_retry_that_was_killed_half_way_is_mended_by_the_next(store, whole):
    rows, stats = with_kept_rows(store, 2, table(refined(1), refined(3)))
    old = store.read(FILES[0])
    commit_shard(store, 2, rows, 4, CLASSES, before=stats)
    store.write(FILES[0], old)  # as if killed before the Parquet file
    assert json.loads(store.read("stats/part-00002.json"))["errors"] == {}
    mend(store, refined(1), refined(3))
    assert [store.read(name) for name in FILES] == [whole.read(name) for name in FILES]


def test_what_is_gone_is_named(store):
    store.delete(FILES[1])
    with pytest.raises(OutputError, match=r"masks/part-00002\.tar has no label map"):
        mend(store, refined(1))
    store.delete(FILES[0])
    with pytest.raises(OutputError, match=r"part-00002\.parquet: use label"):
        mend(store, refined(1))
