"""Checking an output against everything that is promised of it: ``salip-ray verify``.

Every image of the manifest has one row in one committed shard; files hash to what their shard's
statistics say; each row is whole, and its label map is what its masks paint. Only what was written
is read, from local disk or any store that fsspec knows, by a few threads, a shard at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.output.reader import LabelOutput, explaining
from salip_ray.output.verify_shard import FILES, CheckedShard, Problem
from salip_ray.sources.locations import join
from salip_ray.sources.stores import persistently

_NAME = re.compile(r"part-(\d{5,})\.(parquet|tar|json)")


@dataclass(frozen=True)
class Verification:
    """What was checked, and what is wrong.

    Attributes:
        output: its public URI.
        images: of the manifest.
        shards: of the manifest.
        committed: shards that are there.
        rows: rows that were checked.
        label_maps: label maps that were compared with their rows.
        problems: in the order of the shards; empty where all promises are kept.
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
        storage_options: fsspec's, for a remote output.
        partial: of a job that has not ended: shards that are not committed yet, and files that a
            kill left, are no problem.
        manifest: where the manifest is kept, if not in the output.
        workers: threads; by default one for each core.

    Raises:
        OutputError: there is no ``run.json`` that this version can read, or no manifest; or the
            store does not let something of the output be read.
    """
    with explaining(output):
        labels = persistently(lambda: LabelOutput.open_patiently(output, storage_options, manifest))
        columns = ["image_id", "uri", "shard"]
        planned = persistently(lambda: labels.manifest(columns)).combine_chunks()
        found = {folder: _entries(labels, folder) for folder in FILES}
    shards = planned["shard"].to_numpy()
    n_shards = int(shards.max()) + 1 if len(shards) else 0
    problems = list(_check_manifest(labels, planned))
    problems += _check_names(found, n_shards, partial=partial)
    committed = sorted(found["shards"].shards & set(range(n_shards)))
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


# ------------------------------------------------------------------------------ whole output


@dataclass(frozen=True)
class _Entries:
    shards: frozenset[int]
    others: tuple[str, ...]  # names that are not a shard's


def _entries(labels: LabelOutput, folder: str) -> _Entries:
    where = join(labels._root, folder)
    labels._fs.invalidate_cache()
    try:
        paths = persistently(lambda: labels._fs.ls(where, detail=False))
    except FileNotFoundError:
        paths = []
    names = [path.rstrip("/").rpartition("/")[2] for path in paths if path.rstrip("/") != where]
    matches = {name: _NAME.fullmatch(name) for name in sorted(names)}
    good = {name: m for name, m in matches.items() if m and m.group(2) == FILES[folder]}
    return _Entries(
        frozenset(int(match.group(1)) for match in good.values()),
        tuple(f"{folder}/{name}" for name in matches if name not in good),
    )


def _check_manifest(labels: LabelOutput, manifest: pa.Table) -> Iterator[Problem]:
    where = "manifest.parquet"
    known = labels.run["fingerprint"]["manifest"]["images"]
    if manifest.num_rows != known:
        yield Problem(where, f"has {manifest.num_rows:,} images, run.json says {known:,}")
    twice = manifest.num_rows - pc.count_distinct(manifest["image_id"]).as_py()
    if twice:
        yield Problem(where, f"names {twice:,} images twice")
    shards = manifest["shard"].to_numpy()
    if len(shards) and (np.diff(shards, prepend=0) > 1).any():
        yield Problem(where, "leaves out a shard number")
    if (np.diff(shards) < 0).any():
        yield Problem(where, "is not in the order of its shards")


def _check_names(
    found: Mapping[str, _Entries], n_shards: int, *, partial: bool
) -> Iterator[Problem]:
    expected = frozenset(range(n_shards))
    committed = found["shards"].shards
    if (missing := sorted(expected - committed)) and not partial:
        yield Problem(
            "shards", f"{len(missing):,} of {n_shards:,} are not committed, first {missing[0]}"
        )
    for folder, suffix in FILES.items():
        if surplus := sorted(found[folder].shards - expected):
            name = f"{folder}/part-{surplus[0]:05d}.{suffix}"
            yield Problem(name, "is of a shard that the manifest does not have")
        for shard in sorted((committed & expected) - found[folder].shards):
            yield Problem(f"{folder}/part-{shard:05d}.{suffix}", "is missing")
        for name in found[folder].others:
            if not (partial and name.endswith(".tmp")):
                yield Problem(name, "is not a file of this output")
