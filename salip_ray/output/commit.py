"""Committing a shard: label maps first, then its statistics, its Parquet file last.

The Parquet file is the commit. Whatever dies before it leaves a shard that is not there and will be
made again, under the same names and, timings aside, with the same bytes.

Where rows are kept, the Parquet file is there already and the statistics come last: what dies in
between leaves statistics that claim more errors than there are, never fewer.

The rows of a committed shard, as they were before their commit: for a shard that is mended.
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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from salip_ray.errors import OutputError
from salip_ray.output.layout import MASKS, SHARDS, STATS, shard_file
from salip_ray.output.store import Store
from salip_ray.schema import COMMIT_COLUMNS, LABEL_SCHEMA, SCHEMA_VERSION, TIMED_STAGES

_MODE = 0o644


class IncompleteShardError(AssertionError):
    """A shard came to its commit with rows missing or twice: a bug, never to be written."""


def commit_shard(
    store: Store,
    shard: int,
    rows: pa.Table,
    n_rows: int,
    classes: Mapping[str, int],
    *,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write one shard.

    Args:
        store: the output.
        shard: its number.
        rows: refined rows with ``_seq``, ``_png`` and ``_seconds``, in any order.
        n_rows: how many there must be.
        classes: class ids by label, for the JSON beside each label map.
        before: where the shard was committed earlier, its statistics, whose time counts, too.

    Returns:
        The shard's statistics, as written to ``stats/``.

    Raises:
        IncompleteShardError: the rows are not exactly those of the shard.
        OutputError: the output cannot be written.
    """
    rows = rows.sort_by("_seq")
    if rows["_seq"].to_pylist() != list(range(n_rows)):
        raise IncompleteShardError(
            f"shard {shard} must have the rows 0 to {n_rows - 1}, found {rows.num_rows} rows"
        )
    masks, labels = tar_bytes(rows, classes), parquet_bytes(_as_labels(rows))
    stats = {
        "schema_version": SCHEMA_VERSION,
        "shard": shard,
        **shard_stats(rows),
        "files": {SHARDS: describe(labels), MASKS: describe(masks)},
        "committed": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for stage, seconds in (before or {}).get("seconds", {}).items():
        stats["seconds"][stage] = round(stats["seconds"].get(stage, 0.0) + seconds, 4)
    last = [
        (shard_file(STATS, shard), json.dumps(stats, indent=2).encode() + b"\n"),
        (shard_file(SHARDS, shard), labels),
    ]
    store.write(shard_file(MASKS, shard), masks)
    for name, data in last if before is None else reversed(last):
        store.write(name, data)
    return stats


def describe(data: bytes) -> dict[str, Any]:
    """Size and SHA-256 of a file, by which it is verified later."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _as_labels(rows: pa.Table) -> pa.Table:
    # Blocks in which a column held nothing may have lost its type on the way.
    columns = [rows[field.name].cast(field.type) for field in LABEL_SCHEMA]
    return pa.table(columns, schema=LABEL_SCHEMA).combine_chunks()


def parquet_bytes(labels: pa.Table) -> bytes:
    """A shard's rows as a Parquet file; the same rows give the same bytes."""
    buffer = io.BytesIO()
    # Small row groups: training reads a few rows of many shards at random.
    pq.write_table(labels, buffer, compression="zstd", row_group_size=64)
    return buffer.getvalue()


def tar_bytes(rows: pa.Table, classes: Mapping[str, int]) -> bytes:
    """The label maps of a shard in WebDataset's naming: ``KEY.mask.png`` beside ``KEY.json``.

    KEY is the image id. Rows of status ``error`` have no label map and are left out. Headers hold
    nothing of the machine or the hour.
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
            yield f"{row['image_id']}.mask.png", png
            yield f"{row['image_id']}.json", json.dumps(about, ensure_ascii=False).encode()


def shard_stats(rows: pa.Table) -> dict[str, Any]:
    """Counts and timings of a shard's rows."""
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
        "outcomes": {label: dict(sorted(found.items())) for label, found in outcomes.items()},
        "errors": dict(sorted(errors.items())),
        "seconds": spent,
        "memory_fallbacks": [
            {"image_id": row["image_id"], **fallback}
            for row in rows.select(["image_id", "_fallbacks"]).to_pylist()
            for fallback in row["_fallbacks"] or ()
        ],
        "host": platform.node(),
    }


#: What a commit needs of a row.
_NEEDED = (*LABEL_SCHEMA.names, "_seq", "_png", "_seconds", "_fallbacks")


def merge_committed_rows(
    store: Store, shard: int, new: pa.Table | None = None
) -> tuple[pa.Table, Mapping[str, Any]]:
    """Complete new rows of a shard with those that it has.

    Args:
        store: the output.
        shard: its number.
        new: refined rows that take the place of old ones, by ``_seq``; None keeps all.

    Returns:
        All rows as :func:`~salip_ray.output.commit.commit_shard` takes them, and the statistics
        of the earlier commit, empty where they are gone.

    Raises:
        OutputError: a file of the shard is missing, or a kept row has no label map.
    """
    name = shard_file(SHARDS, shard)
    data = store.read(name)
    if data is None:
        raise OutputError(f"output {store} holds no {name}: use label to go on with the job")
    old = pq.read_table(io.BytesIO(data))
    old = old.append_column("_seq", pa.array(np.arange(old.num_rows, dtype=np.int32)))
    kept = old
    if new is not None:
        kept = old.filter(pc.invert(pc.is_in(old["_seq"], new["_seq"].combine_chunks())))
    pngs = _label_maps(store, shard)
    for row in kept.select(["image_id", "status"]).to_pylist():
        if row["status"] != "error" and row["image_id"] not in pngs:
            raise OutputError(
                f"{store}/{shard_file(MASKS, shard)} has no label map of image "
                f"{row['image_id']}: delete {name} and use label to make the shard again"
            )
    maps = [pngs.get(image_id) for image_id in kept["image_id"].to_pylist()]
    kept = kept.append_column("_png", pa.array(maps, COMMIT_COLUMNS["_png"]))
    stats = json.loads(store.read(shard_file(STATS, shard)) or b"{}")
    fallbacks = _fallbacks(stats)
    noted = [fallbacks.get(image_id) for image_id in kept["image_id"].to_pylist()]
    kept = kept.append_column("_fallbacks", pa.array(noted, COMMIT_COLUMNS["_fallbacks"]))
    seconds = pa.nulls(kept.num_rows, COMMIT_COLUMNS["_seconds"])
    kept = kept.append_column("_seconds", seconds)
    return pa.concat_tables([_needed(rows) for rows in (kept, new) if rows is not None]), stats


def _fallbacks(stats: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What the statistics say of images for which memory ran out, by image id."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in stats.get("memory_fallbacks", ()):
        found.setdefault(entry["image_id"], []).append(
            {"stage": entry["stage"], "batch": entry["batch"]}
        )
    return found


def _needed(rows: pa.Table) -> pa.Table:
    types = {**{field.name: field.type for field in LABEL_SCHEMA}, **COMMIT_COLUMNS}
    return pa.table({name: rows[name].cast(types[name]) for name in _NEEDED})


def _label_maps(store: Store, shard: int) -> dict[str, bytes]:
    data = store.read(shard_file(MASKS, shard))
    pngs: dict[str, bytes] = {}
    if data is not None:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                file = tar.extractfile(member)
                if kind == "mask.png" and file is not None:
                    pngs[key] = file.read()
    return pngs
