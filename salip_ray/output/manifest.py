"""The manifest: the images of a job, in order, and the shard of each row.

A listing is sorted by URI, each image gets an id by hash, and the rows are cut into shards of
``rows_per_shard``. The same listing always gives the same shards. The manifest is frozen in the
output all the same, so that a resumed job can see whether its input has changed. If the input has
grown, its old shards stay as they are and the new images go into new shards after them. Therefore a
shard in the middle may be short.
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
from salip_ray.sources.expand import VOLUME_COLUMNS, with_volume_columns
from salip_ray.sources.listing import Listing
from salip_ray.sources.locations import image_id

#: A row of the manifest for the fetch tasks: with its index in the shard and its address.
TODO_SCHEMA = MANIFEST_SCHEMA.append(pa.field("seq", pa.int32(), nullable=False)).append(
    pa.field("address", pa.string())
)
_ORDER = [("uri", "ascending"), ("index", "ascending")]
#: ``seq`` of a row that only fills up a short shard. It has no id and is never committed.
PADDING = -1
_CHUNK = 65_536


@dataclass(frozen=True)
class Manifest:
    """The images of a job, cut into shards.

    Attributes:
        table: :data:`TODO_SCHEMA`, in the order of the shards and of the rows in them.
        rows_per_shard: rows of a shard; the last one, and the last one before each extension, may
            be shorter.
        digest: SHA-256 of the ids, URIs, sizes, etags and the shard size.
        duplicates: number of repeated URIs in the listing; each URI is labelled once.
    """

    table: pa.Table
    rows_per_shard: int
    digest: str
    duplicates: int = 0

    @property
    def n_images(self) -> int:
        """Number of images, and so of rows."""
        return int(self.table.num_rows)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self.sizes)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of rows of each shard, shape [n_shards]."""
        return np.bincount(self.table["shard"].to_numpy())

    @property
    def frozen(self) -> pa.Table:
        """The columns that an output stores: :data:`~salip_ray.schema.MANIFEST_SCHEMA`."""
        return self.table.select(MANIFEST_SCHEMA.names)

    def todo(self, committed: Collection[int]) -> pa.Table:
        """Return the rows of the uncommitted shards, aligned by :func:`align_to_blocks`."""
        done = pa.array(sorted(committed), pa.int32())
        left = self.table.filter(pc.invert(pc.is_in(self.table["shard"], done)))
        return align_to_blocks(left, self.rows_per_shard)


def align_to_blocks(rows: pa.Table, block: int) -> pa.Table:
    """Order rows so that cutting them every ``block`` rows cuts between shards.

    Short shards go last. Each of them except the last is filled up with rows of :data:`PADDING`,
    which pass through the job unchanged and are dropped at the commit.

    Args:
        rows: :data:`TODO_SCHEMA` in order, at most ``block`` rows of each shard.
        block: number of rows of a block.
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


def is_padding(image_id: str) -> bool:
    """Return True if a row with this id is no image, but fills up a short shard."""
    return image_id == ""


def count_images(rows: pa.Table) -> int:
    """Return the number of rows of :data:`TODO_SCHEMA` that are images, not padding."""
    return int(pc.sum(pc.not_equal(rows["seq"], PADDING)).as_py() or 0)


def _padding(shard: int, count: int) -> pa.Table:
    row = {"image_id": "", "uri": "", "shard": shard, "seq": PADDING}
    return pa.Table.from_pylist([row] * count, schema=TODO_SCHEMA)


def make_manifest(listing: Listing, rows_per_shard: int) -> Manifest:
    """Sort a listing, drop duplicates, give each image its id, and cut shards.

    Args:
        listing: the images; volumes may have been expanded to slices.
        rows_per_shard: number of rows of a shard.
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
    sorted_rows = pa.table(columns, schema=TODO_SCHEMA)
    return Manifest(sorted_rows, rows_per_shard, _digest(sorted_rows, rows_per_shard), duplicates)


def with_frozen_shards(frozen: pa.Table, now: Manifest) -> Manifest:
    """Return the images of ``now`` in the shards of a frozen manifest.

    Args:
        frozen: the manifest of the output, with the same images as ``now``.
        now: the images of the input, with the addresses to fetch them from.
    """
    if frozen.equals(now.frozen):
        return now
    manifest = from_frozen(frozen, now.rows_per_shard, addresses=now.table, digest=now.digest)
    return replace(manifest, duplicates=now.duplicates)


def from_frozen(
    frozen: pa.Table,
    rows_per_shard: int,
    *,
    addresses: pa.Table | None = None,
    digest: str | None = None,
) -> Manifest:
    """Return the manifest of an output, ready for a job.

    Args:
        frozen: :data:`~salip_ray.schema.MANIFEST_SCHEMA`, in the order of its shards.
        rows_per_shard: of the job.
        addresses: rows with ``image_id`` and ``address``, if addresses differ from the URIs.
        digest: of the manifest, if it is known.
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


def manifest_digest(frozen: pa.Table, rows_per_shard: int) -> str:
    """Return the digest of a frozen manifest; it equals that of a new manifest of its images."""
    order = pc.sort_indices(frozen, sort_keys=_ORDER)
    return _digest(frozen.take(order), rows_per_shard)


def _without_duplicates(table: pa.Table) -> tuple[pa.Table, int]:
    """Drop the rows of a sorted table that repeat the URI and index of the row before."""
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
    unique = table.filter(first)
    return unique, table.num_rows - unique.num_rows


def _image_ids(table: pa.Table) -> pa.ChunkedArray:
    chunks = []
    for start in range(0, table.num_rows, _CHUNK):
        part = table.slice(start, _CHUNK)
        images = zip(part["uri"].to_pylist(), part["index"].to_pylist(), strict=True)
        chunks.append(pa.array([image_id(uri, index) for uri, index in images], pa.string()))
    return pa.chunked_array(chunks, pa.string())


def _digest(table: pa.Table, rows_per_shard: int) -> str:
    digest = hashlib.sha256(f"rows_per_shard {rows_per_shard}\n".encode())
    for start in range(0, table.num_rows, _CHUNK):
        part = table.slice(start, _CHUNK)
        columns = [part[name].to_pylist() for name in ("image_id", "uri", "size", "etag")]
        for row in zip(*columns, strict=True):
            digest.update(f"{row!r}\n".encode())
    return digest.hexdigest()
