"""The rows of a committed shard, as they were before their commit: for a shard that is mended."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from salip_ray.errors import OutputError
from salip_ray.pipeline import columns
from salip_ray.pipeline.resume import MASKS, SHARDS, STATS, shard_file
from salip_ray.pipeline.store import Store
from salip_ray.pipeline.tables import empty_columns
from salip_ray.rows import LABEL_SCHEMA

#: What a commit needs of a row.
_NEEDED = (*LABEL_SCHEMA.names, "_seq", "_png", "_seconds", "_fallbacks")


def with_kept_rows(
    store: Store, shard: int, new: pa.Table | None = None
) -> tuple[pa.Table, Mapping[str, Any]]:
    """Complete new rows of a shard with those that it has.

    Args:
        store: the output.
        shard: its number.
        new: refined rows that take the place of old ones, by ``_seq``; None keeps all.

    Returns:
        All rows as :func:`~salip_ray.pipeline.commit.commit_shard` takes them, and the statistics
        of the earlier commit, empty where they are gone.

    Raises:
        OutputError: a file of the shard is missing, or a kept row has no label map.
    """
    name = shard_file(SHARDS, shard, "parquet")
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
                f"{store}/{shard_file(MASKS, shard, 'tar')} has no label map of image "
                f"{row['image_id']}: delete {name} and use label to make the shard again"
            )
    maps = [pngs.get(image_id) for image_id in kept["image_id"].to_pylist()]
    kept = kept.append_column("_png", pa.array(maps, columns.TYPES["_png"]))
    stats = json.loads(store.read(shard_file(STATS, shard, "json")) or b"{}")
    fallbacks = _fallbacks(stats)
    noted = [fallbacks.get(image_id) for image_id in kept["image_id"].to_pylist()]
    kept = kept.append_column("_fallbacks", pa.array(noted, columns.TYPES["_fallbacks"]))
    kept = empty_columns(kept, _NEEDED)
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
    types = {**columns.TYPES, "_seq": pa.int32()}
    return pa.table({name: rows[name].cast(types[name]) for name in _NEEDED})


def _label_maps(store: Store, shard: int) -> dict[str, bytes]:
    data = store.read(shard_file(MASKS, shard, "tar"))
    pngs: dict[str, bytes] = {}
    if data is not None:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                file = tar.extractfile(member)
                if kind == "mask.png" and file is not None:
                    pngs[key] = file.read()
    return pngs
