"""Comparison of the outputs of a disturbed and an undisturbed job."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import tree


@dataclass
class Damage:
    """Faults of an output; all of them must be 0.

    Attributes:
        rows_lost: images of the manifest without a row.
        rows_twice: rows beyond the first of an image, or of no image at all.
        bytes_different: files that differ, or are missing.
        extra_files: files that an undisturbed run does not leave.
        crashes: runs that ended with an error.
    """

    rows_lost: int = 0
    rows_twice: int = 0
    bytes_different: int = 0
    extra_files: int = 0
    crashes: int = 0

    def __add__(self, other: Damage) -> Damage:
        mine, theirs = asdict(self), asdict(other)
        return Damage(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def total(self) -> int:
        """Return the sum of all faults."""
        return sum(asdict(self).values())


def compare(output: Path, undisturbed: Path) -> Damage:
    """Compare row by row and byte by byte, without statistics and times."""
    manifest = pq.read_table(undisturbed / "manifest.parquet")["image_id"].to_pylist()
    rows: Counter[str] = Counter()
    for shard in sorted(output.glob("shards/*.parquet")):
        rows.update(pq.read_table(shard, columns=["image_id"])["image_id"].to_pylist())
    written, wanted = tree(output), tree(undisturbed)
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    usual = {str(p.relative_to(undisturbed)) for p in undisturbed.rglob("*") if p.is_file()}
    return Damage(
        rows_lost=len(set(manifest) - rows.keys()),
        rows_twice=sum(count - 1 for count in rows.values()) + len(rows.keys() - set(manifest)),
        bytes_different=sum(written.get(name) != wanted.get(name) for name in written | wanted),
        extra_files=len(names - usual),
    )
