"""Committing a shard: in order, complete, and with the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.output.commit import IncompleteShardError, commit_shard, committed_shards
from salip_ray.output.masks import decode_png, encode_png, encode_rle
from salip_ray.output.store import Store
from salip_ray.pipeline.rows import columns
from salip_ray.schema import LABEL_SCHEMA

CLASSES = {"lungs": 1}


def refined(seq, status="ok"):
    """Return a row as REFINE returns it."""
    good = status != "error"
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = status == "ok"
    cascade = {
        "method": "cascade",
        "label": "lungs",
        "class_id": 1,
        "rle": encode_rle(mask),
        "bbox": [2.0, 1.0, 3.0, 2.0],
        "area": 6,
        "clip_score": 20.5,
        "clip_margin": float("nan"),
        "predicted_iou": 0.9,
        "stability_score": 0.8,
        "candidate_ids": [3],
        "prompt_boxes": [[1.0, 2.0, 3.0, 4.0]],
        "instances": [],
    }
    outcome = "labelled" if status == "ok" else "empty"
    return {
        "image_id": f"{seq:032x}",
        "uri": f"/in/{seq}.png",
        "height": 4 if good else None,
        "width": 6 if good else None,
        "status": status,
        "outcomes": [{"label": "lungs", "outcome": outcome, "reason": ""}] if good else None,
        "error": None if good else {"stage": "decode", "type": "ImageError", "message": "bad"},
        "masks": ([cascade] if status == "ok" else []) if good else None,
        "n_candidates": 3 if good else None,
        "ranking": [] if good else None,
        "_shard": 2,
        "_seq": seq,
        "_png": encode_png(mask.astype(np.uint8)) if good else None,
        "_seconds": {"fetch": 0.5, "propose": 1.0 if good else None},
        "_fallbacks": [{"stage": "propose", "batch": 8}] if seq == 3 else None,
        "volume": None,
        "slice": None,
        "spacing": [0.5, 0.5],
    }


def table(*rows):
    fields = [pa.field(name, columns.TYPES[name]) for name in rows[0]]
    return pa.Table.from_pylist(list(rows), schema=pa.schema(fields))


ROWS = [refined(0), refined(1, "error"), refined(2, "empty"), refined(3)]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def test_committed_shard_has_its_rows_masks_and_statistics(store):
    stats = commit_shard(store, 2, table(*ROWS), 4, CLASSES)
    shard = pq.read_table(io.BytesIO(store.read("shards/part-00002.parquet")))
    assert shard.schema == LABEL_SCHEMA
    assert shard["uri"].to_pylist() == [f"/in/{n}.png" for n in range(4)]
    assert shard["masks"][0].as_py()[0]["rle"] == encode_rle(decode(store)["0.mask.png"] == 1)
    assert shard["error"][1].as_py() == {
        "stage": "decode",
        "type": "ImageError",
        "message": "bad",
    }
    assert stats == json.loads(store.read("stats/part-00002.json"))
    assert stats["status"] == {"empty": 1, "error": 1, "ok": 2}
    assert stats["outcomes"] == {"lungs": {"empty": 1, "labelled": 2}}
    assert stats["errors"] == {"decode": 1}
    assert stats["seconds"]["fetch"] == 2.0
    assert stats["seconds"]["propose"] == 3.0
    assert stats["memory_fallbacks"] == [{"image_id": f"{3:032x}", "stage": "propose", "batch": 8}]
    for folder, name in (("shards", "part-00002.parquet"), ("masks", "part-00002.tar")):
        data = store.read(f"{folder}/{name}")
        assert stats["files"][folder]["bytes"] == len(data)
        assert stats["files"][folder]["sha256"] == hashlib.sha256(data).hexdigest()


def decode(store):
    """Return the members of the tar file, with keys shortened to their number."""
    members = {}
    with tarfile.open(fileobj=io.BytesIO(store.read("masks/part-00002.tar"))) as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            data = tar.extractfile(member).read()
            members[f"{int(key, 16)}.{kind}"] = (
                decode_png(data) if kind == "mask.png" else json.loads(data)
            )
            assert (member.mtime, member.uid, member.uname) == (0, 0, "")
    return members


def test_tar_pairs_label_maps_with_json_and_leaves_out_errors(store):
    commit_shard(store, 2, table(*ROWS), 4, CLASSES)
    members = decode(store)
    assert list(members) == ["0.mask.png", "0.json", "2.mask.png", "2.json", "3.mask.png", "3.json"]
    assert members["0.mask.png"].sum() == 6
    assert members["2.mask.png"].sum() == 0
    assert members["0.json"]["classes"] == CLASSES
    assert members["0.json"]["uri"] == "/in/0.png"


def test_same_rows_in_any_order_give_the_same_bytes(tmp_path):
    stores = [Store(tmp_path / name) for name in "ab"]
    slower = [{**row, "_seconds": {"fetch": 9.0}} for row in reversed(ROWS)]
    commit_shard(stores[0], 2, table(*ROWS), 4, CLASSES)
    commit_shard(stores[1], 2, pa.concat_tables([table(row) for row in slower]), 4, CLASSES)
    for name in ("shards/part-00002.parquet", "masks/part-00002.tar"):
        assert stores[0].read(name) == stores[1].read(name)


def test_shard_of_errors_has_no_label_map(store):
    commit_shard(store, 2, table(refined(0, "error")), 1, CLASSES)
    assert decode(store) == {}


def test_columns_without_a_type_get_that_of_the_schema(store):
    rows = table(refined(0, "error"))
    for name in ("masks", "outcomes", "height", "n_candidates"):
        index = rows.column_names.index(name)
        rows = rows.set_column(index, name, pa.nulls(1))
    commit_shard(store, 2, rows, 1, CLASSES)
    shard = pq.read_table(io.BytesIO(store.read("shards/part-00002.parquet")))
    assert shard.schema == LABEL_SCHEMA


@pytest.mark.parametrize("rows", [ROWS[:3], [*ROWS, ROWS[0]], [ROWS[0], ROWS[1], ROWS[1], ROWS[3]]])
def test_missing_or_repeated_row_writes_nothing(store, rows):
    with pytest.raises(IncompleteShardError, match="shard 2 must have the rows 0 to 3"):
        commit_shard(store, 2, table(*rows), 4, CLASSES)
    assert store.names() == []


@pytest.mark.parametrize("dies_at", ["masks", "stats", "shards"])
def test_death_before_the_parquet_file_leaves_no_commit(store, monkeypatch, dies_at):
    write = Store.write

    def dying(self, name, data):
        if name.startswith(dies_at):
            raise KeyboardInterrupt
        write(self, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            commit_shard(store, 2, table(*ROWS), 4, CLASSES)
    assert committed_shards(store) == {}
    commit_shard(store, 2, table(*ROWS), 4, CLASSES)
    assert list(committed_shards(store)) == [2]


def test_a_folder_or_an_empty_file_commits_no_shard(tmp_path):
    store = Store(tmp_path)
    store.write("shards/part-00000.parquet", b"")
    Path(store.location, "shards", "part-00001.parquet").mkdir()
    assert committed_shards(store) == {}
