"""Comparing the output of a job that was disturbed with that of one that was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import tree


@dataclass
class Damage:
    """What is wrong with an output; all of it must be 0.

    Attributes:
        rows_lost: images of the manifest without a row.
        rows_twice: rows beyond the first of an image, or of no image at all.
        bytes_different: files that differ, by one byte or by not being there.
        leftovers: files that no undisturbed run leaves.
        crashes: runs that ended by themselves, but not well.
    """

    rows_lost: int = 0
    rows_twice: int = 0
    bytes_different: int = 0
    leftovers: int = 0
    crashes: int = 0

    def __add__(self, other: Damage) -> Damage:
        mine, theirs = asdict(self), asdict(other)
        return Damage(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def total(self) -> int:
        """0 where all is well."""
        return sum(asdict(self).values())


def compare(output: Path, undisturbed: Path) -> Damage:
    """Compare row by row and byte by byte; statistics and timings apart."""
    manifest = pq.read_table(undisturbed / "manifest.parquet")["image_id"].to_pylist()
    rows: Counter[str] = Counter()
    for shard in sorted(output.glob("shards/*.parquet")):
        rows.update(pq.read_table(shard, columns=["image_id"])["image_id"].to_pylist())
    found, wanted = tree(output), tree(undisturbed)
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    usual = {str(p.relative_to(undisturbed)) for p in undisturbed.rglob("*") if p.is_file()}
    return Damage(
        rows_lost=len(set(manifest) - rows.keys()),
        rows_twice=sum(count - 1 for count in rows.values()) + len(rows.keys() - set(manifest)),
        bytes_different=sum(found.get(name) != wanted.get(name) for name in found | wanted),
        leftovers=len(names - usual),
    )
