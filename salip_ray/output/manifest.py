"""The manifest: what is to be labelled, in which order, and in which shard each row will be.

Listing -> sorted by URI -> named by hash -> cut into shards of ``rows_per_shard``. All of it
follows from the listing alone, so the same input always gives the same shards; it is frozen in the
output all the same, for a resume has to see whether the input is still what it was. An input that
has grown keeps the shards it had: what is new goes into new shards after them, so that a shard in
the middle may be short.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.sources.listing import Listing
from salip_ray.sources.locations import image_id

#: A manifest row on its way to the fetch tasks: its place in the shard, and how to fetch it.
TODO_SCHEMA = MANIFEST_SCHEMA.append(pa.field("seq", pa.int32(), nullable=False)).append(
    pa.field("address", pa.string())
)
#: The columns that say which picture of a file a row is, and of which volume.
VOLUME_COLUMNS = pa.schema([MANIFEST_SCHEMA.field(name) for name in ("index", "volume", "slice")])
_ORDER = [("uri", "ascending"), ("index", "ascending")]
PADDING = -1  #: ``seq`` of a row that only fills a short shard up; it is never committed
_CHUNK = 65_536


@dataclass(frozen=True)
class Manifest:
    """A manifest cut into shards.

    Attributes:
        table: :data:`TODO_SCHEMA`, in the order of shards and of rows within them.
        rows_per_shard: rows of a shard; the last, and the last before each extension, may be
            shorter.
        digest: SHA-256 of what the manifest says (ids, URIs, sizes, etags, shard size).
        duplicates: how often a URI was named again; it is labelled once.
    """

    table: pa.Table
    rows_per_shard: int
    digest: str
    duplicates: int = 0

    @property
    def n_images(self) -> int:
        """Images, and so rows, of the job."""
        return int(self.table.num_rows)

    @property
    def n_shards(self) -> int:
        """Shards of the job."""
        return len(self.sizes)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Rows of each shard when it is whole, [n_shards]."""
        return np.bincount(self.table["shard"].to_numpy())

    @property
    def manifest(self) -> pa.Table:
        """What is frozen in the output: :data:`~salip_ray.schema.MANIFEST_SCHEMA`."""
        return self.table.select(MANIFEST_SCHEMA.names)

    def todo(self, committed: Collection[int]) -> pa.Table:
        """The rows of the shards that are not committed, aligned by :func:`align_to_blocks`."""
        done = pa.array(sorted(committed), pa.int32())
        left = self.table.filter(pc.invert(pc.is_in(self.table["shard"], done)))
        return align_to_blocks(left, self.rows_per_shard)


def align_to_blocks(rows: pa.Table, block: int) -> pa.Table:
    """Order rows so that cutting them every ``block`` rows cuts between shards.

    Short shards go last, and each but the very last is filled up with rows of :data:`PADDING`,
    which pass through the job untouched and are dropped at the commit.

    Args:
        rows: :data:`TODO_SCHEMA`, at most ``block`` rows of a shard, in order.
        block: rows of a block.
    """
    sizes = np.bincount(rows["shard"].to_numpy()) if rows.num_rows else np.zeros(0, np.int64)
    short = [int(shard) for shard in np.flatnonzero((sizes > 0) & (sizes < block))]
    if not short or (len(short) == 1 and short[0] == len(sizes) - 1):
        return rows
    is_short = pc.is_in(rows["shard"], pa.array(short, pa.int32()))
    parts, rest = [rows.filter(pc.invert(is_short))], rows.filter(is_short)
    start = 0
    for shard in short:
        size = int(sizes[shard])
        parts.append(rest.slice(start, size))
        start += size
        if shard != short[-1]:
            parts.append(_padding(shard, block - size))
    return pa.concat_tables(parts).combine_chunks()


def _padding(shard: int, count: int) -> pa.Table:
    row = {"image_id": "", "uri": "", "shard": shard, "seq": PADDING}
    return pa.Table.from_pylist([row] * count, schema=TODO_SCHEMA)


def make_manifest(listing: Listing, rows_per_shard: int) -> Manifest:
    """Sort a listing, drop what is named twice, name the images and cut shards.

    The listing may have been expanded to slices (:mod:`salip_ray.pipeline.expand`).
    """
    table = with_volume_columns(listing.table)
    table = table.take(pc.sort_indices(table, sort_keys=_ORDER)).combine_chunks()
    table, duplicates = _without_duplicates(table)
    rows = np.arange(table.num_rows)
    columns = {
        "image_id": _image_ids(table),
        "uri": table["uri"],
        "size": table["size"],
        "etag": table["etag"],
        "shard": pa.array((rows // rows_per_shard).astype(np.int32)),
        **{name: table[name] for name in VOLUME_COLUMNS.names},
        "seq": pa.array((rows % rows_per_shard).astype(np.int32)),
        "address": table["address"],
    }
    planned = pa.table(columns, schema=TODO_SCHEMA)
    return Manifest(planned, rows_per_shard, _digest(planned, rows_per_shard), duplicates)


def with_frozen_shards(frozen: pa.Table, now: Manifest) -> Manifest:
    """The plan of a resume: the images of ``now``, in the shards that were frozen.

    Args:
        frozen: the manifest of the output; it names the images of ``now``, each once.
        now: what the input holds, with the addresses to fetch it from.
    """
    if frozen.equals(now.manifest):
        return now
    plan = from_frozen(frozen, now.rows_per_shard, addresses=now.table, digest=now.digest)
    return replace(plan, duplicates=now.duplicates)


def from_frozen(
    frozen: pa.Table,
    rows_per_shard: int,
    *,
    addresses: pa.Table | None = None,
    digest: str | None = None,
) -> Manifest:
    """The plan that a frozen manifest holds.

    Args:
        frozen: :data:`~salip_ray.schema.MANIFEST_SCHEMA`, in the order of its shards.
        rows_per_shard: of the job.
        addresses: rows with ``image_id`` and ``address``, where addresses are not the URIs.
        digest: of the manifest, where it is known.
    """
    shards = frozen["shard"].to_numpy()
    first = np.searchsorted(shards, shards)
    values: dict[str, pa.Array | pa.ChunkedArray] = {
        "seq": pa.array((np.arange(len(shards)) - first).astype(np.int32)),
        "address": pa.nulls(frozen.num_rows, pa.string()),
    }
    if addresses is not None:
        known = addresses["image_id"].combine_chunks()
        order = pc.index_in(frozen["image_id"], value_set=known)
        values["address"] = addresses["address"].take(order)
    table = frozen
    for field in (TODO_SCHEMA.field(name) for name in values):
        table = table.append_column(field, values[field.name])
    table = table.select(TODO_SCHEMA.names).combine_chunks()
    return Manifest(table, rows_per_shard, digest or manifest_digest(frozen, rows_per_shard))


def manifest_digest(manifest: pa.Table, rows_per_shard: int) -> str:
    """The digest of a frozen manifest: that of a :class:`Manifest` of the same images."""
    order = pc.sort_indices(manifest, sort_keys=_ORDER)
    return _digest(manifest.take(order), rows_per_shard)


def with_volume_columns(table: pa.Table) -> pa.Table:
    """A listing with the columns of :data:`VOLUME_COLUMNS`, null where a file is one picture."""
    for field in VOLUME_COLUMNS:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _without_duplicates(table: pa.Table) -> tuple[pa.Table, int]:
    """Drop a row whose URI and index are those of the row before it, in a sorted table."""
    if table.num_rows < 2:
        return table, 0
    index = table["index"].fill_null(-1)
    differs = pc.or_(
        *(
            pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
            for column in (table["uri"], index)
        )
    )
    first = pa.chunked_array([pa.array([True]), *differs.chunks])
    kept = table.filter(first)
    return kept, table.num_rows - kept.num_rows


def _image_ids(table: pa.Table) -> pa.ChunkedArray:
    chunks = []
    for start in range(0, table.num_rows, _CHUNK):
        part = table.slice(start, _CHUNK)
        places = zip(part["uri"].to_pylist(), part["index"].to_pylist(), strict=True)
        chunks.append(pa.array([image_id(uri, index) for uri, index in places], pa.string()))
    return pa.chunked_array(chunks, pa.string())


def _digest(table: pa.Table, rows_per_shard: int) -> str:
    digest = hashlib.sha256(f"rows_per_shard {rows_per_shard}\n".encode())
    for start in range(0, table.num_rows, _CHUNK):
        part = table.slice(start, _CHUNK)
        columns = [part[name].to_pylist() for name in ("image_id", "uri", "size", "etag")]
        for row in zip(*columns, strict=True):
            digest.update(f"{row!r}\n".encode())
    return digest.hexdigest()
