"""The manifests of several runs as one: their images in one order, and the rows of each run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.output.manifest import Manifest, from_frozen
from salip_ray.schema import MANIFEST_SCHEMA

#: Shard and row of each image in a run, [n, 2]; -1 if the run does not have it.
RowNumbers = npt.NDArray[np.int64]
_ORDER = [("uri", "ascending"), ("index", "ascending")]


def united(tables: Sequence[pa.Table], rows_per_shard: int) -> tuple[Manifest, int]:
    """Return the images of several manifests as one, and how many are in at least two of them."""
    every = pa.concat_tables(tables).combine_chunks()
    # The first run that has an image describes it.
    first = pc.index_in(every["image_id"], value_set=pc.unique(every["image_id"]))
    _, rows, counts = np.unique(first.to_numpy(), return_index=True, return_counts=True)
    table = every.take(pa.array(rows))
    table = table.take(pc.sort_indices(table, sort_keys=_ORDER))
    shards = (np.arange(table.num_rows) // rows_per_shard).astype(np.int32)
    index = MANIFEST_SCHEMA.get_field_index("shard")
    table = table.set_column(index, MANIFEST_SCHEMA.field("shard"), pa.array(shards))
    table = table.cast(MANIFEST_SCHEMA).combine_chunks()
    return from_frozen(table, rows_per_shard), int((counts > 1).sum())


def replaced(tables: Sequence[pa.Table], ids: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return whether the known sizes or etags of each image differ between manifests."""
    changed = np.zeros(len(ids), np.bool_)
    for name in ("size", "etag"):
        known = pa.nulls(len(ids), tables[0].schema.field(name).type)
        for table in tables:
            own = table[name].combine_chunks().take(_positions(table, ids))
            differs = pc.not_equal(known, own).fill_null(False)
            changed |= differs.to_numpy(zero_copy_only=False)
            known = pc.coalesce(known, own)
    return changed


def _positions(table: pa.Table, ids: pa.ChunkedArray) -> pa.Array:
    """Return the row of each image in a manifest; null if it does not have it."""
    rows = pc.index_in(ids.combine_chunks(), value_set=table["image_id"].combine_chunks())
    return rows.cast(pa.int64())


def row_numbers(table: pa.Table, ids: pa.ChunkedArray) -> RowNumbers:
    """Return shard and row of each image in a run with this manifest."""
    shards = table["shard"].to_numpy()
    rows = np.arange(len(shards)) - np.searchsorted(shards, shards)
    at = _positions(table, ids).fill_null(-1).to_numpy()
    numbers = np.stack([shards[at], rows[at]], axis=1).astype(np.int64)
    numbers[at < 0] = -1
    return numbers
