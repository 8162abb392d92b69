"""Commit a shard: write its label maps, then its statistics, and its Parquet file last.

The Parquet file is the commit. A writer that dies before it leaves an uncommitted shard, which is
made again under the same names and, except for times, with the same bytes.

If a committed shard is written again, its statistics first announce the checksums of the new files
(``next``), and are replaced last. So every file matches a recorded checksum at any moment, and a
rewrite that was interrupted can be told from a file that was altered.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.output.claim import as_json
from salip_ray.output.layout import (
    MASKS,
    SHARDS,
    STATS,
    description_member,
    label_map_member,
    shard_file,
    shard_number,
)
from salip_ray.output.store import Store
from salip_ray.schema import SCHEMA_VERSION, TIMED_STAGES, label_schema

_MODE = 0o644
#: Field of the statistics with the checksums of a rewrite that has started.
NEXT = "next"


class IncompleteShardError(AssertionError):
    """A shard has missing or repeated rows at its commit: a bug, so nothing is written."""


def committed_shards(store: Store) -> dict[int, str]:
    """Return the names of the committed shards by number, in order.

    A folder or an empty file with the name of a Parquet file commits nothing.

    Raises:
        StoreError: the output cannot be listed.
    """
    names = (name for name, size in store.sizes(SHARDS).items() if size)
    numbers = {name: shard_number(name) for name in names}
    return dict(sorted((n, name) for name, n in numbers.items() if n is not None))


def commit_shard(
    store: Store,
    shard: int,
    rows: pa.Table,
    n_rows: int,
    classes: Mapping[str, int],
    *,
    before: Mapping[str, Any] | None = None,
    version: int = SCHEMA_VERSION,
) -> dict[str, Any]:
    """Write one shard.

    The caller checks first that its job still holds the lease
    (:func:`salip_ray.output.lease.require_owner`).

    Args:
        store: the output.
        shard: number of the shard.
        rows: refined rows in any order, with the columns of
            :data:`~salip_ray.schema.LABEL_SCHEMA` and :data:`~salip_ray.schema.COMMIT_COLUMNS`.
        n_rows: number of rows that the shard must have.
        classes: class ids by label, for the JSON file next to each label map.
        before: statistics of the earlier commit of the shard, whose times are added; None if the
            shard is not committed.
        version: schema version of the output.

    Returns:
        The statistics of the shard, as written to ``stats/``.

    Raises:
        IncompleteShardError: the rows are not exactly those of the shard.
        StoreError: the output cannot be written.
    """
    rows = rows.sort_by("_seq")
    if rows["_seq"].to_pylist() != list(range(n_rows)):
        raise IncompleteShardError(
            f"shard {shard} must have the rows 0 to {n_rows - 1}, but has {rows.num_rows} rows"
        )
    masks, labels = tar_bytes(rows, classes), parquet_bytes(_label_columns(rows, version))
    stats = {
        "schema_version": version,
        "shard": shard,
        **shard_stats(rows),
        "files": {SHARDS: describe(labels), MASKS: describe(masks)},
        "committed": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for stage, seconds in (before or {}).get("seconds", {}).items():
        stats["seconds"][stage] = round(stats["seconds"].get(stage, 0.0) + seconds, 4)
    if before is not None:
        store.write(shard_file(STATS, shard), as_json({**before, NEXT: stats["files"]}))
    store.write(shard_file(MASKS, shard), masks)
    if before is None:
        store.write(shard_file(STATS, shard), as_json(stats))
    store.write(shard_file(SHARDS, shard), labels)
    if before is not None:
        store.write(shard_file(STATS, shard), as_json(stats))
    return stats


def recorded_checksums(stats: Mapping[str, Any], folder: str) -> list[Any]:
    """Return the checksums that a shard's file may have: of its commit and of a rewrite.

    Args:
        stats: statistics of the shard.
        folder: ``shards`` or ``masks``.
    """
    recorded = [stats.get(field, {}).get(folder) for field in ("files", NEXT)]
    return [checksum for checksum in recorded if checksum is not None]


def describe(data: bytes) -> dict[str, Any]:
    """Return the size and SHA-256 of a file, with which it is verified later."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _label_columns(rows: pa.Table, version: int) -> pa.Table:
    schema = label_schema(version)
    # A column that is null in a whole block may have lost its type.
    columns = [rows[field.name].cast(field.type) for field in schema]
    return pa.table(columns, schema=schema).combine_chunks()


def parquet_bytes(labels: pa.Table) -> bytes:
    """Return the rows of a shard as a Parquet file; the same rows give the same bytes."""
    buffer = io.BytesIO()
    # Small row groups: training reads a few rows of many shards at random.
    pq.write_table(labels, buffer, compression="zstd", row_group_size=64)
    return buffer.getvalue()


def tar_bytes(rows: pa.Table, classes: Mapping[str, int]) -> bytes:
    """Return the label maps of a shard as a tar file in the naming of WebDataset.

    Each image has ``IMAGE_ID.mask.png`` and ``IMAGE_ID.json``; error rows have neither. Headers
    hold no time, user or host.

    Args:
        rows: refined rows in the order of the shard.
        classes: class ids by label.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in _tar_members(rows, classes):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), _MODE
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _tar_members(rows: pa.Table, classes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    names = ["image_id", "uri", "height", "width", "status", "outcomes", "_png"]
    for batch in rows.select(names).to_batches(max_chunksize=64):
        for row in batch.to_pylist():
            if row["status"] == "error":
                continue
            png = row.pop("_png")
            about = {**row, "classes": dict(classes)}
            yield label_map_member(row["image_id"]), png
            about_bytes = json.dumps(about, ensure_ascii=False).encode()
            yield description_member(row["image_id"]), about_bytes


def shard_stats(rows: pa.Table) -> dict[str, Any]:
    """Return the counts and times of the rows of a shard."""
    statuses = Counter(rows["status"].to_pylist())
    outcomes: dict[str, Counter[str]] = {}
    for row in rows["outcomes"].to_pylist():
        for item in row or ():
            outcomes.setdefault(item["label"], Counter())[item["outcome"]] += 1
    errors = Counter(f"{item['stage']}" for item in rows["error"].to_pylist() if item)
    seconds = rows["_seconds"].to_pylist()
    spent = {
        stage: round(sum((row or {}).get(stage) or 0.0 for row in seconds), 4)
        for stage in TIMED_STAGES
    }
    return {
        "rows": rows.num_rows,
        "status": dict(sorted(statuses.items())),
        "outcomes": {label: dict(sorted(counts.items())) for label, counts in outcomes.items()},
        "errors": dict(sorted(errors.items())),
        "seconds": spent,
        "memory_fallbacks": [
            {"image_id": row["image_id"], **fallback}
            for row in rows.select(["image_id", "_fallbacks"]).to_pylist()
            for fallback in row["_fallbacks"] or ()
        ],
        "host": platform.node(),
    }
