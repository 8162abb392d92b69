"""The manifest: what is to be labelled, in which order, and in which shard each row will be.

Listing -> sorted by URI -> named by hash -> cut into shards of ``rows_per_shard``. All of it
follows from the listing alone, so the same input always gives the same shards; it is frozen in the
output all the same, for a resume has to see whether the input is still what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.rows import MANIFEST_SCHEMA
from salip_ray.sources.listing import Listing
from salip_ray.sources.locations import image_id

#: A manifest row on its way to the fetch tasks: its place in the shard, and how to fetch it.
TODO_SCHEMA = MANIFEST_SCHEMA.append(pa.field("seq", pa.int32(), nullable=False)).append(
    pa.field("address", pa.string())
)
_CHUNK = 65_536


@dataclass(frozen=True)
class Plan:
    """A manifest cut into shards.

    Attributes:
        table: :data:`TODO_SCHEMA`, in the order of shards and of rows within them.
        rows_per_shard: rows of every shard but the last, which may be shorter.
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
        return -(-self.n_images // self.rows_per_shard)

    def rows_of(self, shard: int) -> int:
        """How many rows a shard has when it is whole."""
        return min(self.rows_per_shard, self.n_images - shard * self.rows_per_shard)

    @property
    def manifest(self) -> pa.Table:
        """What is frozen in the output: :data:`~salip_ray.rows.MANIFEST_SCHEMA`."""
        return self.table.select(MANIFEST_SCHEMA.names)

    def todo(self, committed: Collection[int]) -> pa.Table:
        """The rows of the shards that are not committed, in order."""
        done = pa.array(sorted(committed), pa.int32())
        return self.table.filter(pc.invert(pc.is_in(self.table["shard"], done)))


def make_plan(listing: Listing, rows_per_shard: int) -> Plan:
    """Sort a listing, drop URIs named twice, name the images and cut shards."""
    table = listing.table
    table = table.take(pc.sort_indices(table, sort_keys=[("uri", "ascending")])).combine_chunks()
    table, duplicates = _without_duplicates(table)
    rows = np.arange(table.num_rows)
    columns = {
        "image_id": _image_ids(table["uri"]),
        "uri": table["uri"],
        "size": table["size"],
        "etag": table["etag"],
        "shard": pa.array((rows // rows_per_shard).astype(np.int32)),
        "seq": pa.array((rows % rows_per_shard).astype(np.int32)),
        "address": table["address"],
    }
    planned = pa.table(columns, schema=TODO_SCHEMA)
    return Plan(planned, rows_per_shard, _digest(planned, rows_per_shard), duplicates)


def _without_duplicates(table: pa.Table) -> tuple[pa.Table, int]:
    """Drop a row whose URI is that of the row before it, in a sorted table."""
    if table.num_rows < 2:
        return table, 0
    uri = table["uri"]
    first = pa.chunked_array(
        [pa.array([True]), *pc.not_equal(uri.slice(1), uri.slice(0, len(uri) - 1)).chunks]
    )
    kept = table.filter(first)
    return kept, table.num_rows - kept.num_rows


def _image_ids(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [
        pa.array([image_id(uri) for uri in uris.slice(start, _CHUNK).to_pylist()], pa.string())
        for start in range(0, len(uris), _CHUNK)
    ]
    return pa.chunked_array(chunks, pa.string())


def _digest(table: pa.Table, rows_per_shard: int) -> str:
    digest = hashlib.sha256(f"rows_per_shard {rows_per_shard}\n".encode())
    for start in range(0, table.num_rows, _CHUNK):
        part = table.slice(start, _CHUNK)
        columns = [part[name].to_pylist() for name in ("image_id", "uri", "size", "etag")]
        for row in zip(*columns, strict=True):
            digest.update(f"{row!r}\n".encode())
    return digest.hexdigest()


def describe_change(frozen: pa.Table, now: pa.Table) -> str:
    """What differs between two manifests, in a few words."""
    added = pc.sum(pc.invert(pc.is_in(now["image_id"], frozen["image_id"].combine_chunks())))
    gone = pc.sum(pc.invert(pc.is_in(frozen["image_id"], now["image_id"].combine_chunks())))
    both = frozen.join(now, "image_id", right_suffix="_now", join_type="inner")
    counts = (
        (added.as_py() or 0, "added"),
        (gone.as_py() or 0, "removed"),
        (_count_altered(both), "altered"),
    )
    said = [f"{count:,} image{'s' * (count != 1)} {what}" for count, what in counts if count]
    return ", ".join(said) or "its shards are cut differently"


def _count_altered(both: pa.Table) -> int:
    altered: pa.ChunkedArray | None = None
    for name, unknown in (("size", -1), ("etag", "")):
        before, after = both[name].fill_null(unknown), both[f"{name}_now"].fill_null(unknown)
        differs = pc.not_equal(before, after)
        altered = differs if altered is None else pc.or_(altered, differs)
    return int(pc.sum(altered).as_py() or 0)
