"""Read the rows of a committed shard as they were before their commit, to write it again."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from salip_ray.errors import OutputError
from salip_ray.output.commit import NEXT, describe, recorded_checksums
from salip_ray.output.layout import (
    MASKS,
    SHARDS,
    STATS,
    image_of_member,
    is_label_map,
    shard_file,
)
from salip_ray.output.manifest import Manifest
from salip_ray.output.store import Store
from salip_ray.output.summary import read_statistics
from salip_ray.schema import COMMIT_COLUMNS, LABEL_SCHEMA

#: The columns that a commit needs, with their types.
_COLUMNS: dict[str, pa.DataType] = {
    **{field.name: field.type for field in LABEL_SCHEMA},
    **{name: type_ for name, type_ in COMMIT_COLUMNS.items() if name != "_shard"},
}


def find_errors(store: Store, manifest: Manifest) -> tuple[pa.Array, list[int]]:
    """Return the ids of images whose rows are errors, and the shards with unfinished rewrites.

    Args:
        store: the output.
        manifest: of the job.

    Raises:
        OutputError: a file of a shard was altered since its commit, or its statistics are missing.
    """
    failed: list[str] = []
    unfinished: list[int] = []
    for shard in range(manifest.n_shards):
        name = shard_file(SHARDS, shard)
        data = store.read(name)
        if data is None:
            continue
        stats = _read_statistics(store, shard)
        if NEXT in stats:
            unfinished.append(shard)
        if describe(data) not in recorded_checksums(stats, SHARDS):
            raise OutputError(
                f"{store.path_of(name)} was altered after its commit: restore it from a copy, or "
                "delete it and run the label command again, which makes the shard anew"
            )
        rows = pq.read_table(io.BytesIO(data), columns=["image_id", "status"])
        failed += rows.filter(pc.equal(rows["status"], "error"))["image_id"].to_pylist()
    return pa.array(failed, pa.string()), unfinished


def _read_statistics(store: Store, shard: int) -> dict[str, Any]:
    name = shard_file(STATS, shard)
    data = store.read(name)
    if data is None:
        raise OutputError(
            f"{store.path_of(name)} is missing: restore it from a copy, or delete "
            f"{shard_file(SHARDS, shard)} and run the label command again"
        )
    return read_statistics(store.path_of(name), data)


def merge_committed_rows(
    store: Store, shard: int, new: pa.Table | None = None
) -> tuple[pa.Table, Mapping[str, Any]]:
    """Merge new rows of a shard with its committed rows.

    Args:
        store: the output.
        shard: number of the shard.
        new: refined rows that replace committed ones with the same ``_seq``; None replaces none.

    Returns:
        All rows as :func:`~salip_ray.output.commit.commit_shard` takes them, and the statistics of
        the earlier commit.

    Raises:
        OutputError: a file of the shard is missing, or an unreplaced row has no label map.
    """
    name = shard_file(SHARDS, shard)
    data = store.read(name)
    if data is None:
        raise OutputError(f"output {store} holds no {name}: use label to resume the job")
    old = pq.read_table(io.BytesIO(data))
    old = old.append_column("_seq", pa.array(np.arange(old.num_rows, dtype=np.int32)))
    if new is not None:
        old = old.filter(pc.invert(pc.is_in(old["_seq"], new["_seq"].combine_chunks())))
    label_maps = _read_label_maps(store, shard)
    for row in old.select(["image_id", "status"]).to_pylist():
        if row["status"] != "error" and row["image_id"] not in label_maps:
            raise OutputError(
                f"{store.path_of(shard_file(MASKS, shard))} has no label map of image "
                f"{row['image_id']}: delete {name} and use label to make the shard again"
            )
    stats = _read_statistics(store, shard)
    fallbacks = _fallbacks_by_image(stats)
    ids = old["image_id"].to_pylist()
    added = {
        "_png": pa.array([label_maps.get(i) for i in ids], COMMIT_COLUMNS["_png"]),
        "_fallbacks": pa.array([fallbacks.get(i) for i in ids], COMMIT_COLUMNS["_fallbacks"]),
        "_seconds": pa.nulls(len(ids), COMMIT_COLUMNS["_seconds"]),  # counted in ``stats``
    }
    for column, values in added.items():
        old = old.append_column(column, values)
    tables = [old] if new is None else [old, new]
    return pa.concat_tables([_commit_columns(table) for table in tables]), stats


def _fallbacks_by_image(stats: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the stages that ran out of memory, by image id."""
    fallbacks: dict[str, list[dict[str, Any]]] = {}
    for entry in stats.get("memory_fallbacks", ()):
        fallbacks.setdefault(entry["image_id"], []).append(
            {"stage": entry["stage"], "batch": entry["batch"]}
        )
    return fallbacks


def _commit_columns(rows: pa.Table) -> pa.Table:
    return pa.table({name: rows[name].cast(type_) for name, type_ in _COLUMNS.items()})


def _read_label_maps(store: Store, shard: int) -> dict[str, bytes]:
    data = store.read(shard_file(MASKS, shard))
    label_maps: dict[str, bytes] = {}
    if data is not None:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if is_label_map(member.name) and file is not None:
                    label_maps[image_of_member(member.name)] = file.read()
    return label_maps
