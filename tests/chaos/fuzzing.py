"""Damaged files in the job's own listing, fetch and decode, with the expected result of each.

A mutated file is ``error`` rows with a reason or rows with pixels; never an exception, a crash or a
hang, and it takes no more memory than the limits allow. Among them go files that nothing was done
to, and files with a harmless addition (bytes behind the end, a comment, another suffix): those must
give the pixels of the original, of every slice.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from salip_ray.config import Config, load_config
from salip_ray.output.manifest import make_manifest
from salip_ray.pipeline.decoding.decode import fetch_and_decode
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.sources.expand import expand
from salip_ray.sources.listing import LISTING_SCHEMA, Listing
from tests.chaos.mutations import Sample, mutate
from tests.chaos.originals import originals
from tests.conftest import SMALL

_HANG = 600.0  # seconds for some dozens of small files
_LIMITS = ("image.max_pixels=4000000", "image.max_bytes=20000000", "image.max_frames=64")


@cache
def config() -> Config:
    """Return the configuration of all jobs, with limits that only decompression bombs reach."""
    return load_config("lungs", overrides=[*SMALL, *_LIMITS])


class _Silent(StageReporter):
    """Says nothing of the errors, which are many and expected."""

    def done(self, *_: object, **__: object) -> None:
        """Nothing."""


Rows = list[dict[str, Any]]


def rows_of(files: list[Path]) -> list[Rows]:
    """Return the rows that the job's listing, fetch and decode make of each file."""
    listed = [{"uri": str(path), "size": path.stat().st_size} for path in files]
    listing, _ = expand(Listing(pa.Table.from_pylist(listed, LISTING_SCHEMA)), config())
    plan = make_manifest(listing, 64)
    uris = plan.table["uri"].to_pylist()
    results: dict[str, Rows] = {uri: [] for uri in uris}
    columns = ["status", "error", "height", "width", "_working"]
    tables = fetch_and_decode(plan.table, config(), None, _Silent())
    rows = [row for table in tables for row in table.select(columns).to_pylist()]
    for uri, row in zip(uris, rows, strict=True):
        results[uri].append(row)
    return [results[str(path)] for path in files]


def fault_of(sample: Sample, rows: Rows, expected: Rows) -> str | None:
    """Return the fault in the rows of a file, or None."""
    if sample.must_decode and len(rows) != len(expected):
        return f"{len(rows)} pictures, the original has {len(expected)}"
    for index, row in enumerate(rows):
        if fault := _fault_of_row(row):
            return fault
        if sample.must_decode and row["status"] != "ok":
            return f"refused: {row['error'] and row['error']['message']}"
        if sample.must_decode and row["_working"] != expected[index]["_working"]:
            return "other pixels than the original's"
    return None if rows else "no row at all"


def _fault_of_row(row: dict[str, Any]) -> str | None:
    if row["status"] == "error":
        error = row["error"]
        has_reason = error and error["message"] and error["type"] and error["stage"]
        return None if has_reason else "an error row without a reason"
    if row["status"] not in {"ok", "empty"} or not row["height"] or not row["width"]:
        return f"neither an error nor a picture: {row['status']}"
    return "ok, but no pixels" if row["status"] == "ok" and not row["_working"] else None


def decode_together(samples: list[Sample], folder: str) -> list[str | None]:
    """Decode files as the job does; return the fault of each."""
    rows = _rows_of_bytes([(sample.name, sample.data) for sample in samples], folder)
    return [
        fault_of(sample, results, _good_rows(folder)[sample.original])
        for sample, results in zip(samples, rows, strict=True)
    ]


@cache
def _good_rows(folder: str) -> dict[str, Rows]:
    """Return the rows of the originals, made once per process."""
    return dict(zip(originals(), _rows_of_bytes(list(originals().items()), folder), strict=True))


def _rows_of_bytes(files: list[tuple[str, bytes]], folder: str) -> list[Rows]:
    paths = []
    for index, (name, data) in enumerate(files):
        path = Path(folder, f"{multiprocessing.current_process().pid}-{index}-{name}")
        path.write_bytes(data)
        paths.append(path)
    try:
        return rows_of(paths)
    finally:
        for path in paths:
            path.unlink()


@dataclass
class Fuzzed:
    """Result of a fuzz run: files, by kind of mutation, and those with a fault.

    ``peak_mib`` is the most memory that the decoding process held.
    """

    files: int = 0
    peak_mib: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def fuzz(
    files: int, seed: int, folder: Path, *, out_of_time: Callable[[], bool] = lambda: False
) -> Fuzzed:
    """Decode many mutated files, in a separate process that may crash or hang."""
    folder.mkdir(parents=True, exist_ok=True)
    results, rng = Fuzzed(), random.Random(seed)
    for group in _groups(files, rng):
        if out_of_time():
            break
        results.files += len(group)
        results.kinds.update(sample.kind for sample in group)
        results.formats.update(sample.original for sample in group)
        for sample, fault in zip(group, _decoded_apart(group, folder), strict=True):
            if fault is not None:
                path = folder / f"fault-{seed}-{len(results.faults)}-{sample.name}"
                path.write_bytes(sample.data)
                results.faults.append(f"{path.name} ({sample.kind}): {fault}")
    if _pool:
        results.peak_mib = _pool[0].submit(_peak_mib).result(timeout=_HANG)
    _stop_pool()
    return results


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _groups(files: int, rng: random.Random) -> Iterator[list[Sample]]:
    for start in range(0, files, 50):
        yield [mutate(rng) for _ in range(min(50, files - start))]


_pool: list[ProcessPoolExecutor] = []


def _decoded_apart(group: list[Sample], folder: Path) -> list[str | None]:
    """Decode in another process; if it crashes or hangs, decode one by one to find the file."""
    if not _pool:
        spawn = multiprocessing.get_context("spawn")
        _pool.append(ProcessPoolExecutor(1, mp_context=spawn, initializer=_be_brief))
    try:
        return _pool[0].submit(decode_together, group, str(folder)).result(timeout=_HANG)
    except Exception as problem:  # noqa: BLE001  (a broken pool, a time-out, a bug)
        _stop_pool()
        if len(group) == 1:
            return [f"{type(problem).__name__}: {problem}"]
        return [fault for sample in group for fault in _decoded_apart([sample], folder)]


def _be_brief() -> None:
    os.environ["RUST_BACKTRACE"] = "0"


def _stop_pool() -> None:
    while _pool:
        pool = _pool.pop()
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
