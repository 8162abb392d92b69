"""What an input has become since its manifest was frozen, and how a job takes up what is new."""

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


@dataclass(frozen=True)
class Change:
    """How many images an input has gained, lost and altered since its manifest was frozen."""

    added: int
    removed: int
    altered: int

    @property
    def is_growth(self) -> bool:
        """Whether images were added and nothing else happened."""
        return self.added > 0 and not (self.removed or self.altered)

    def __str__(self) -> str:
        counts = ((self.added, "added"), (self.removed, "removed"), (self.altered, "altered"))
        said = [f"{count:,} image{'s' * (count != 1)} {what}" for count, what in counts if count]
        return ", ".join(said) or "its shards are cut differently"


def compare(frozen: pa.Table, now: pa.Table) -> Change:
    """What differs between two manifests."""
    added = pc.sum(pc.invert(pc.is_in(now["image_id"], frozen["image_id"].combine_chunks())))
    gone = pc.sum(pc.invert(pc.is_in(frozen["image_id"], now["image_id"].combine_chunks())))
    both = frozen.join(now, "image_id", right_suffix="_now", join_type="inner")
    return Change(added.as_py() or 0, gone.as_py() or 0, _count_altered(both))


def _count_altered(both: pa.Table) -> int:
    altered: pa.ChunkedArray | None = None
    for name, unknown in (("size", -1), ("etag", "")):
        before, after = both[name].fill_null(unknown), both[f"{name}_now"].fill_null(unknown)
        differs = pc.not_equal(before, after)
        altered = differs if altered is None else pc.or_(altered, differs)
    return int(pc.sum(altered).as_py() or 0)


def extend_manifest(frozen: pa.Table, now: Manifest) -> Manifest:
    """The plan of a grown input: frozen shards as they are, what is new in new shards after them.

    Args:
        frozen: the manifest of the output; ``now`` names all of its images.
        now: what the input holds.

    Raises:
        ResumeError: a series has gained files that give its frozen slices other places.
    """
    _require_places(frozen, now.table)
    known = pc.is_in(now.table["image_id"], value_set=frozen["image_id"].combine_chunks())
    new = now.manifest.filter(pc.invert(known))
    first = pc.max(frozen["shard"]).as_py() + 1 if frozen.num_rows else 0
    shards = (first + np.arange(new.num_rows) // now.rows_per_shard).astype(np.int32)
    index = new.schema.get_field_index("shard")
    new = new.set_column(index, MANIFEST_SCHEMA.field("shard"), pa.array(shards))
    return with_frozen_shards(pa.concat_tables([frozen, new]).combine_chunks(), now)


def _require_places(frozen: pa.Table, now: pa.Table) -> None:
    """Raise ResumeError where a frozen image is not the slice of the volume any more that it was.

    Its row is committed with its place, which a slice from the grown series may have by now.
    """
    before = frozen.select(["volume", "slice"])
    at = pc.index_in(frozen["image_id"], value_set=now["image_id"].combine_chunks())
    after = now.select(before.column_names).take(at)
    moved = pc.or_(
        pc.not_equal(before["volume"].fill_null(""), after["volume"].fill_null("")),
        pc.not_equal(before["slice"].fill_null(-1), after["slice"].fill_null(-1)),
    )
    if count := pc.sum(moved).as_py():
        first = [
            _place(table.filter(moved).slice(0, 1).to_pylist()[0]) for table in (before, after)
        ]
        raise ResumeError(
            f"--extend cannot move labelled images to other places of their series ({count:,} "
            f"would be; the first was {first[0]}, is {first[1]}): leave the new files of that "
            "series out, and label all of it as an input of its own, into another output"
        )


def _place(row: Mapping[str, Any]) -> str:
    if row["volume"] is None:
        return "in no volume"
    return f"slice {row['slice']} of volume {row['volume']}"
