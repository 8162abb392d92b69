"""How an input has changed since its manifest was frozen, and how a job adds its new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.errors import ResumeError
from salip_ray.output.manifest import Manifest, with_frozen_shards
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.wording import counted


@dataclass(frozen=True)
class Change:
    """Number of images added to, removed from and altered in an input."""

    added: int
    removed: int
    altered: int

    @property
    def is_growth(self) -> bool:
        """Return True if images were added and nothing else changed."""
        return self.added > 0 and not (self.removed or self.altered)

    def __str__(self) -> str:
        counts = ((self.added, "added"), (self.removed, "removed"), (self.altered, "altered"))
        parts = [f"{counted(count, 'image')} {what}" for count, what in counts if count]
        return ", ".join(parts) or "its shards are cut differently"


def compare(frozen: pa.Table, now: pa.Table) -> Change:
    """Return the difference between two manifests (:data:`~salip_ray.schema.MANIFEST_SCHEMA`)."""
    added = pc.sum(pc.invert(pc.is_in(now["image_id"], frozen["image_id"].combine_chunks())))
    removed = pc.sum(pc.invert(pc.is_in(frozen["image_id"], now["image_id"].combine_chunks())))
    both = frozen.join(now, "image_id", right_suffix="_now", join_type="inner")
    return Change(added.as_py() or 0, removed.as_py() or 0, _count_altered(both))


def _count_altered(both: pa.Table) -> int:
    altered: pa.ChunkedArray | None = None
    for name, unknown in (("size", -1), ("etag", "")):
        before, after = both[name].fill_null(unknown), both[f"{name}_now"].fill_null(unknown)
        differs = pc.not_equal(before, after)
        altered = differs if altered is None else pc.or_(altered, differs)
    return int(pc.sum(altered).as_py() or 0)


def extend_manifest(frozen: pa.Table, now: Manifest) -> Manifest:
    """Return the manifest of a grown input: the frozen shards, then new images in new shards.

    Args:
        frozen: the manifest of the output.
        now: the images of the input; it has all images of ``frozen``.

    Raises:
        ResumeError: a series has new files between its frozen slices, which would renumber them.
    """
    _require_same_slices(frozen, now.table)
    known = pc.is_in(now.table["image_id"], value_set=frozen["image_id"].combine_chunks())
    new = now.frozen.filter(pc.invert(known))
    first = pc.max(frozen["shard"]).as_py() + 1 if frozen.num_rows else 0
    shards = (first + np.arange(new.num_rows) // now.rows_per_shard).astype(np.int32)
    index = new.schema.get_field_index("shard")
    new = new.set_column(index, MANIFEST_SCHEMA.field("shard"), pa.array(shards))
    return with_frozen_shards(pa.concat_tables([frozen, new]).combine_chunks(), now)


def _require_same_slices(frozen: pa.Table, now: pa.Table) -> None:
    """Raise ResumeError if a frozen image has another volume or slice number now.

    Its committed row has the old number, which another slice of the series would share.
    """
    before = frozen.select(["volume", "slice"])
    rows = pc.index_in(frozen["image_id"], value_set=now["image_id"].combine_chunks())
    after = now.select(before.column_names).take(rows)
    moved = pc.or_(
        pc.not_equal(before["volume"].fill_null(""), after["volume"].fill_null("")),
        pc.not_equal(before["slice"].fill_null(-1), after["slice"].fill_null(-1)),
    )
    if count := pc.sum(moved).as_py():
        first = [
            _slice_name(table.filter(moved).slice(0, 1).to_pylist()[0]) for table in (before, after)
        ]
        images = counted(count, "labelled image")
        raise ResumeError(
            f"--extend cannot renumber slices: the new files would renumber {images} (the first "
            f"was {first[0]}, is {first[1]}). Leave the new files of that series out, and label "
            "the whole series as a separate input into another output"
        )


def _slice_name(row: Mapping[str, Any]) -> str:
    if row["volume"] is None:
        return "in no volume"
    return f"slice {row['slice']} of volume {row['volume']}"
