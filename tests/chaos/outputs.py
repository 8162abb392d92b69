"""Comparison of the outputs of a disturbed and an undisturbed job, and damage done on purpose."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from salip_ray.errors import OutputError
from salip_ray.output.verify import verify
from tests.chaos.mutations import MUTATIONS
from tests.conftest import tree


@dataclass
class Damage:
    """Faults of an output; all of them must be 0.

    Attributes:
        rows_lost: images of the manifest without a row.
        rows_twice: rows beyond the first of an image, or of no image at all.
        bytes_different: files that differ, or are missing.
        extra_files: files that an undisturbed run does not leave.
        crashes: runs that ended with an error, or without one that was due.
        unnoticed: files that were altered on purpose, and that ``verify`` did not name.
    """

    rows_lost: int = 0
    rows_twice: int = 0
    bytes_different: int = 0
    extra_files: int = 0
    crashes: int = 0
    unnoticed: int = 0

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


def snapshot(output: Path) -> dict[str, bytes]:
    """Return every file of an output, by relative path."""
    files = (path for path in output.rglob("*") if path.is_file())
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def alter(output: Path, digest: str, rng: random.Random) -> str | None:
    """Alter one file of an output, verify, and restore it.

    Args:
        output: a sound output.
        digest: its root digest, as if stored elsewhere.
        rng: chooses the file and the change.

    Returns:
        What was altered and not named, or None.
    """
    path = rng.choice(sorted(path for path in output.rglob("*") if path.is_file()))
    data, kind = path.read_bytes(), rng.choice([*MUTATIONS, "delete"])
    if kind == "delete":
        path.unlink()
    else:
        altered = bytes(MUTATIONS[kind](bytearray(data), rng))
        path.write_bytes(altered if altered != data else data + b"x")
    try:
        findings = [str(problem) for problem in verify(str(output), expect=digest).problems]
    except OutputError as refusal:
        findings = [str(refusal)]
    finally:
        path.write_bytes(data)
    # The digest finds what a file's own checks cannot, and names no file; a shard has its number.
    named = (path.name, "digest", f"not committed, the first is {path.stem[-5:].lstrip('0') or 0}")
    if any(name in line for line in findings for name in named):
        return None
    return f"{kind} of {path.name}: {findings}"
