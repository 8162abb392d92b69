"""Writing a committed shard again: new rows replace its errors, all others are unchanged."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pyarrow as pa
import pytest

from salip_ray.errors import OutputError
from salip_ray.output.commit import commit_shard, describe, parquet_bytes
from salip_ray.output.committed_rows import find_errors, merge_committed_rows
from salip_ray.output.store import Store
from salip_ray.schema import LABEL_SCHEMA
from tests.unit.output.test_commit import CLASSES, refined, table

FILES = ("shards/part-00002.parquet", "masks/part-00002.tar")


@pytest.fixture
def store(tmp_path):
    """A store with a shard whose rows 1 and 3 are errors."""
    store = Store(tmp_path / "out")
    rows = [refined(0), refined(1, "error"), refined(2, "empty"), refined(3, "error")]
    commit_shard(store, 2, table(*rows), 4, CLASSES)
    return store


@pytest.fixture
def whole(tmp_path):
    """A store with the same shard without errors."""
    store = Store(tmp_path / "whole")
    rows = [refined(0), refined(1), refined(2, "empty"), refined(3)]
    commit_shard(store, 2, table(*rows), 4, CLASSES)
    return store


def rewrite(store, *rows):
    merged, before = merge_committed_rows(store, 2, table(*rows))
    return commit_shard(store, 2, merged, 4, CLASSES, before=before)


def test_rewritten_shard_has_the_bytes_of_one_without_errors(store, whole):
    stats = rewrite(store, refined(3), refined(1))
    for name in FILES:
        assert store.read(name) == whole.read(name)
    assert stats["status"] == {"empty": 1, "ok": 3}
    assert stats["seconds"]["propose"] == 4.0  # 2 before, 2 now


def test_row_that_fails_again_stays_an_error(store):
    before = [store.read(name) for name in FILES]
    rewrite(store, refined(1, "error"), refined(3, "error"))
    assert [store.read(name) for name in FILES] == before


class KilledError(BaseException):
    """Stands for the kill of a driver."""


def killed_before(monkeypatch, store, folder, *rows):
    writes = []

    def write(name, data):
        writes.append(name.partition("/")[0])
        # The first write of the statistics announces the others.
        if name.startswith(folder) and writes.count(folder) == (2 if folder == "stats" else 1):
            raise KilledError
        Store.write(store, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", write)
        with pytest.raises(KilledError):
            rewrite(store, *rows)


def stats_of(store):
    return json.loads(store.read("stats/part-00002.json"))


@pytest.mark.parametrize("folder", ["masks", "shards", "stats"])
def test_killed_retry_is_completed_by_the_next_one(store, whole, monkeypatch, folder):
    before = stats_of(store)
    killed_before(monkeypatch, store, folder, refined(1), refined(3))
    announced = stats_of(store)
    assert {name: announced[name] for name in before} == before  # not fewer errors than there are
    assert announced["next"]["shards"] == describe(whole.read(FILES[0]))
    rewrite(store, refined(1), refined(3))
    assert [store.read(name) for name in FILES] == [whole.read(name) for name in FILES]
    assert stats_of(store)["seconds"]["propose"] == 4.0  # the time of the killed retry counts once


def test_stale_statistics_are_made_again_from_the_rows(store, whole, monkeypatch):
    manifest = SimpleNamespace(n_shards=3)
    assert find_errors(store, manifest)[1] == []
    killed_before(monkeypatch, store, "stats", refined(1), refined(3, "error"))
    failed, stale = find_errors(store, manifest)
    assert (failed.to_pylist(), stale) == ([f"{3:032x}"], [2])
    rows, before = merge_committed_rows(store, 2)
    commit_shard(store, 2, rows, 4, CLASSES, before=before)
    assert find_errors(store, manifest)[1] == []
    assert stats_of(store)["status"] == {"empty": 1, "error": 1, "ok": 2}
    assert stats_of(store)["seconds"] == before["seconds"]
    rewrite(store, refined(3))
    assert [store.read(name) for name in FILES] == [whole.read(name) for name in FILES]


def test_an_altered_file_is_not_taken_for_an_interrupted_retry(store):
    rows = merge_committed_rows(store, 2)[0].select(LABEL_SCHEMA.names)
    altered = rows.set_column(1, "uri", pa.array(["/in/other.png"] * 4))
    store.write(FILES[0], parquet_bytes(altered))
    manifest = SimpleNamespace(n_shards=3)
    with pytest.raises(OutputError, match=r"part-00002\.parquet was altered after its commit"):
        find_errors(store, manifest)
    store.delete("stats/part-00002.json")
    with pytest.raises(OutputError, match=r"part-00002\.json is missing"):
        find_errors(store, manifest)


def test_memory_fallbacks_of_unchanged_rows_stay_recorded(store):
    rewrite(store, refined(3))
    noted = [{"image_id": f"{3:032x}", "stage": "propose", "batch": 8}]
    assert stats_of(store)["memory_fallbacks"] == noted
    rewrite(store, refined(1))  # row 3 is unchanged
    assert stats_of(store)["memory_fallbacks"] == noted
    rewrite(store, {**refined(3), "_fallbacks": None})  # labelled again without a fallback
    assert stats_of(store)["memory_fallbacks"] == []


def test_missing_file_is_named(store):
    store.delete(FILES[1])
    with pytest.raises(OutputError, match=r"masks/part-00002\.tar has no label map"):
        rewrite(store, refined(1))
    store.delete(FILES[0])
    with pytest.raises(OutputError, match=r"part-00002\.parquet: use label"):
        rewrite(store, refined(1))
