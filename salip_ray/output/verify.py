"""Check an output against everything that its format guarantees: ``salip-ray verify``.

Every image of the manifest has one row in one committed shard. Files match the checksums in the
statistics of their shard. Each row is complete, and its label map shows its masks. Only files of
the output are read, from local disk or any store that fsspec knows, by a few threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.output.layout import MANIFEST, RUN, SHARDS, SUFFIXES, shard_file, shard_number
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify_shard import CheckedShard, Problem
from salip_ray.wording import counted


@dataclass(frozen=True)
class Verification:
    """What was checked, and the problems.

    Attributes:
        output: its public URI.
        images: number of images of the manifest.
        shards: number of shards of the manifest.
        committed: number of committed shards.
        rows: number of rows that were checked.
        label_maps: number of label maps that were compared with their rows.
        problems: in the order of the shards; empty if the output is sound.
    """

    output: str
    images: int
    shards: int
    committed: int
    rows: int
    label_maps: int
    problems: tuple[Problem, ...]


def verify(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
    manifest: str | None = None,
    workers: int | None = None,
) -> Verification:
    """Check an output.

    Args:
        output: a location that ``salip-ray label`` wrote.
        storage_options: fsspec options of a remote output.
        partial: accept a job that has not ended: missing shards and temporary files of a killed
            job are no problems.
        manifest: the file of the manifest, if that is not in the output.
        workers: number of threads; by default one for each core.

    Raises:
        NoJobError: there is no ``run.json``, or no manifest.
        OutputError: a file cannot be read, or ``run.json`` not by this version.
    """
    labels = LabelOutput.open(output, storage_options, manifest)
    planned = labels.manifest(["image_id", "uri", "shard"]).combine_chunks()
    entries = {folder: _entries(labels, folder) for folder in SUFFIXES}
    shards = planned["shard"].to_numpy()
    n_shards = int(shards.max()) + 1 if len(shards) else 0
    problems = list(_check_manifest(labels, planned))
    problems += _check_names(entries, n_shards, partial=partial)
    committed = sorted(entries[SHARDS].shards & set(range(n_shards)))
    bounds = np.searchsorted(shards, np.arange(n_shards + 1))

    def check(shard: int) -> CheckedShard:
        first, end = int(bounds[shard]), int(bounds[shard + 1])
        return CheckedShard.check(labels, shard, planned.slice(first, end - first))

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        checked = list(pool.map(check, committed))
    return Verification(
        output=labels.uri,
        images=planned.num_rows,
        shards=n_shards,
        committed=len(committed),
        rows=sum(shard.rows for shard in checked),
        label_maps=sum(shard.label_maps for shard in checked),
        problems=(*problems, *chain.from_iterable(shard.problems for shard in checked)),
    )


@dataclass(frozen=True)
class _Entries:
    shards: frozenset[int]
    others: tuple[str, ...]  # names that are not a shard's
    temporary: tuple[str, ...]  # temporary files of killed writers


def _entries(labels: LabelOutput, folder: str) -> _Entries:
    numbers = {name: shard_number(name, folder) for name in labels.store.names(folder)}
    return _Entries(
        frozenset(number for number in numbers.values() if number is not None),
        tuple(f"{folder}/{name}" for name, number in numbers.items() if number is None),
        tuple(f"{folder}/{name}" for name in labels.store.temporary_names(folder)),
    )


def _check_manifest(labels: LabelOutput, manifest: pa.Table) -> Iterator[Problem]:
    recorded = labels.run["fingerprint"]["manifest"]["images"]
    if manifest.num_rows != recorded:
        yield Problem(MANIFEST, f"has {manifest.num_rows:,} images, {RUN} says {recorded:,}")
    repeated = manifest.num_rows - pc.count_distinct(manifest["image_id"]).as_py()
    if repeated:
        yield Problem(MANIFEST, f"names {counted(repeated, 'image')} twice")
    shards = manifest["shard"].to_numpy()
    if len(shards) and (np.diff(shards, prepend=0) > 1).any():
        yield Problem(MANIFEST, "leaves out a shard number")
    if (np.diff(shards) < 0).any():
        yield Problem(MANIFEST, "is not in the order of its shards")


def _check_names(
    entries: Mapping[str, _Entries], n_shards: int, *, partial: bool
) -> Iterator[Problem]:
    expected = frozenset(range(n_shards))
    committed = entries[SHARDS].shards
    if (missing := sorted(expected - committed)) and not partial:
        verb = "is" if len(missing) == 1 else "are"
        yield Problem(
            SHARDS,
            f"{len(missing):,} of {n_shards:,} {verb} not committed, the first is {missing[0]}",
        )
    for folder in SUFFIXES:
        if surplus := sorted(entries[folder].shards - expected):
            yield Problem(
                shard_file(folder, surplus[0]), "is of a shard that the manifest does not have"
            )
        for shard in sorted((committed & expected) - entries[folder].shards):
            yield Problem(shard_file(folder, shard), "is missing")
        for name in entries[folder].others:
            yield Problem(name, "is not a file of this output")
        for name in entries[folder].temporary if not partial else ():
            yield Problem(name, "is not a file of this output, but of a writer that was killed")
