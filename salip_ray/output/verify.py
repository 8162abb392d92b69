"""Check an output against everything that its format guarantees: ``salip-ray verify``.

Every image of the manifest has one row in one committed shard. Files match the checksums in the
statistics of their shard, and those match the seal. Each row is complete, and its label map shows
its masks. Counts add up, reviews can be read, and no other file exists. A damaged file is named,
and the others are still checked. Only files of the output are read, by a few threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from salip_ray.errors import StoreError
from salip_ray.output.layout import (
    DECISIONS,
    MANIFEST,
    SEAL,
    SHARDS,
    SUFFIXES,
    SUMMARY,
    shard_file,
    shard_number,
)
from salip_ray.output.reader import LabelOutput
from salip_ray.output.seal import read_seal, root_digest
from salip_ray.output.verify_job import check_manifest, check_root, check_seal, check_summary
from salip_ray.output.verify_reviews import check_reviews
from salip_ray.output.verify_shard import CheckedShard, Problem
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.wording import one_line


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
        digest: root digest in hex (:mod:`salip_ray.output.seal`); None if the output is not sealed.
        problems: in the order of the shards; empty if the output is sound.
    """

    output: str
    images: int
    shards: int
    committed: int
    rows: int
    label_maps: int
    digest: str | None
    problems: tuple[Problem, ...]


def verify(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
    manifest: str | None = None,
    expect: str | None = None,
    workers: int | None = None,
) -> Verification:
    """Check an output.

    Args:
        output: a location that ``salip-ray label`` wrote.
        storage_options: fsspec options of a remote output.
        partial: accept a job that has not ended: missing shards and temporary files of a killed
            job are no problems.
        manifest: the file of the manifest, if that is not in the output.
        expect: root digest that the output must have, as an earlier verification returned it.
        workers: number of threads; by default one for each core.

    Raises:
        NoJobError: there is no ``run.json``, or no manifest.
        OutputError: a file cannot be read, or ``run.json`` not by this version.
    """
    labels = LabelOutput.open(output, storage_options, manifest)
    planned = labels.manifest(MANIFEST_SCHEMA.names).combine_chunks()
    seal = labels.read(SEAL)
    entries = {folder: _entries(labels, folder) for folder in SUFFIXES}
    shards = planned["shard"].to_numpy()
    n_shards = int(shards.max()) + 1 if len(shards) else 0
    problems = [
        *_guarded(SEAL, check_seal(labels, seal, partial=partial)),
        *_check_digest(seal, expect),
        *_guarded(MANIFEST, check_manifest(labels, planned)),
        *_guarded(labels.uri, check_root(labels, partial=partial)),
        *_check_names(entries, n_shards, partial=partial),
    ]
    sealed = _sealed_files(seal)
    committed = sorted(entries[SHARDS].shards & set(range(n_shards)))
    bounds = np.searchsorted(shards, np.arange(n_shards + 1))

    def check(shard: int) -> CheckedShard:
        first, end = int(bounds[shard]), int(bounds[shard + 1])
        expected = planned.slice(first, end - first)
        try:
            return CheckedShard.check(labels, shard, expected, sealed, partial=partial)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  (one damaged file must not hide the others)
            return CheckedShard(0, 0, (_unreadable(shard_file(SHARDS, shard), error),))

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        checked = list(pool.map(check, committed))
    statistics = [shard.statistics for shard in checked if shard.statistics is not None]
    after: list[Problem] = []
    if len(statistics) == n_shards and not partial:
        problems_of_summary = check_summary(labels, statistics, planned.num_rows, n_shards)
        after += _guarded(SUMMARY, problems_of_summary)
    after += _guarded(DECISIONS, check_reviews(labels, set(planned["image_id"].to_pylist())))
    return Verification(
        output=labels.uri,
        images=planned.num_rows,
        shards=n_shards,
        committed=len(committed),
        rows=sum(shard.rows for shard in checked),
        label_maps=sum(shard.label_maps for shard in checked),
        digest=None if sealed is None else root_digest(seal or b""),
        problems=(*problems, *chain.from_iterable(s.problems for s in checked), *after),
    )


def _sealed_files(seal: bytes | None) -> Mapping[str, Mapping[str, Any]] | None:
    try:
        return read_seal(seal)
    except ValueError:
        return None  # reported by check_seal


def _check_digest(seal: bytes | None, expect: str | None) -> Iterator[Problem]:
    if expect is None:
        return
    if seal is None or root_digest(seal) != expect.strip().lower():
        actual = "no seal" if seal is None else f"the root digest {root_digest(seal)}"
        yield Problem(SEAL, f"the output has {actual}, expected {expect}")


def _guarded(where: str, problems: Iterator[Problem]) -> list[Problem]:
    """Return problems, and one more if a file is damaged in a way that no check foresees."""
    collected: list[Problem] = []
    try:
        collected.extend(problems)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001  (one damaged file must not hide the others)
        collected.append(_unreadable(where, error))
    return collected


def _unreadable(where: str, error: Exception) -> Problem:
    message = one_line(error, 200)
    return Problem(where, f"is damaged: {type(error).__name__}: {message}")


@dataclass(frozen=True)
class _Entries:
    shards: frozenset[int]
    others: tuple[str, ...]  # names that are not a shard's
    temporary: tuple[str, ...]  # temporary files of killed writers


def _entries(labels: LabelOutput, folder: str) -> _Entries:
    sizes = labels.store.sizes(folder)
    # A folder or an empty file is no shard's, whatever its name.
    numbers = {
        name: shard_number(name, folder) if sizes.get(name) else None
        for name in labels.store.names(folder)
    }
    return _Entries(
        frozenset(number for number in numbers.values() if number is not None),
        tuple(f"{folder}/{name}" for name, number in numbers.items() if number is None),
        tuple(f"{folder}/{name}" for name in labels.store.temporary_names(folder)),
    )


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
