"""Checking an output against everything that is promised of it: ``salip-ray verify``.

Every image of the manifest has one row in one committed shard; files hash to what their shard's
statistics say; each row is whole, and its label map is what its masks paint. Only what was written
is read, from local disk or any store that fsspec knows, by a few threads, a shard at a time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from salip_ray.labels.reading import Labels
from salip_ray.labels.row_checks import check_members, check_row
from salip_ray.rows import LABEL_SCHEMA
from salip_ray.sources.locations import join

#: Folder and suffix of a shard's files.
FILES = {"shards": "parquet", "masks": "tar", "stats": "json"}
_NAME = re.compile(r"part-(\d{5,})\.(parquet|tar|json)")
_MEMBER = re.compile(r"([0-9a-f]{32})\.(mask\.png|json)")


@dataclass(frozen=True)
class Problem:
    """A promise that is broken: the file or row, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


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
    workers: int | None = None,
) -> Verification:
    """Check an output.

    Args:
        output: a location that ``salip-ray label`` wrote.
        storage_options: fsspec's, for a remote output.
        partial: of a job that has not ended: shards that are not committed yet, and files that a
            kill left, are no problem.
        workers: threads; by default one for each core.

    Raises:
        OutputError: there is no ``run.json`` that this version can read, or no manifest.
    """
    labels = Labels.open(output, storage_options)
    labels.n_images()  # says so where there is no manifest
    manifest = _read_manifest(labels)
    shards = manifest["shard"].to_numpy()
    n_shards = int(shards.max()) + 1 if len(shards) else 0
    found = {folder: _entries(labels, folder) for folder in FILES}
    problems = list(_check_manifest(labels, manifest))
    problems += _check_names(found, n_shards, partial=partial)
    committed = sorted(found["shards"].shards & set(range(n_shards)))
    bounds = np.searchsorted(shards, np.arange(n_shards + 1))

    def check(shard: int) -> _Shard:
        first, end = int(bounds[shard]), int(bounds[shard + 1])
        return _Shard.check(labels, shard, manifest.slice(first, end - first))

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        checked = list(pool.map(check, committed))
    return Verification(
        output=labels.uri,
        images=manifest.num_rows,
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


def _entries(labels: Labels, folder: str) -> _Entries:
    where = join(labels._root, folder)
    labels._fs.invalidate_cache()
    try:
        paths = labels._fs.ls(where, detail=False)
    except FileNotFoundError:
        paths = []
    names = [path.rstrip("/").rpartition("/")[2] for path in paths if path.rstrip("/") != where]
    matches = {name: _NAME.fullmatch(name) for name in sorted(names)}
    good = {name: m for name, m in matches.items() if m and m.group(2) == FILES[folder]}
    return _Entries(
        frozenset(int(match.group(1)) for match in good.values()),
        tuple(f"{folder}/{name}" for name in matches if name not in good),
    )


def _read_manifest(labels: Labels) -> pa.Table:
    with labels._fs.open(join(labels._root, "manifest.parquet"), "rb") as stream:
        return pq.read_table(stream, columns=["image_id", "uri", "shard"]).combine_chunks()


def _check_manifest(labels: Labels, manifest: pa.Table) -> Iterator[Problem]:
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


# ------------------------------------------------------------------------------- one shard


@dataclass(frozen=True)
class _Shard:
    rows: int
    label_maps: int
    problems: tuple[Problem, ...]

    @classmethod
    def check(cls, labels: Labels, shard: int, expected: pa.Table) -> _Shard:
        """Check the files of a committed shard against its part of the manifest."""
        names = {f: f"{f}/part-{shard:05d}.{suffix}" for f, suffix in FILES.items()}
        problems: list[Problem] = []
        data = {folder: _read(labels, name, problems) for folder, name in names.items()}
        stats = _parse_stats(data["stats"], names["stats"], problems)
        sound = {
            folder: _check_file(data[folder], stats, folder, names[folder], problems)
            for folder in ("shards", "masks")
        }
        rows = _parse_rows(data["shards"], names["shards"], problems) if sound["shards"] else None
        if rows is None:
            return cls(0, 0, tuple(problems))
        problems += _check_ids(rows, expected, names["shards"])
        problems += _check_counts(rows, stats, names["stats"])
        members = _members(data["masks"], names["masks"], problems) if sound["masks"] else None
        label_maps = 0
        for row in rows:
            where = f"{names['shards']} row {row['image_id']}"
            problems += (Problem(where, what) for what in check_row(row, labels.classes))
            if members is not None:
                where = f"{names['masks']} key {row['image_id']}"
                wrong = list(check_members(row, members, labels.classes))
                problems += (Problem(where, what) for what in wrong)
                label_maps += row["status"] != "error"
        if members is not None:
            ids = {row["image_id"] for row in rows}
            problems += (
                Problem(names["masks"], f"member {name!r} belongs to no row")
                for name in members
                if not (match := _MEMBER.fullmatch(name)) or match.group(1) not in ids
            )
        return cls(len(rows), label_maps, tuple(problems))


def _read(labels: Labels, name: str, problems: list[Problem]) -> bytes | None:
    try:
        return bytes(labels._fs.cat_file(join(labels._root, name)))
    except FileNotFoundError:
        return None  # said already, by name
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
        problems.append(Problem(name, f"cannot be read: {' '.join(str(error).split())}"))
        return None


def _parse_stats(data: bytes | None, name: str, problems: list[Problem]) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        stats = json.loads(data)
        return dict(stats)
    except (ValueError, TypeError):
        problems.append(Problem(name, "is not valid JSON"))
        return {}


def _check_file(
    data: bytes | None, stats: Mapping[str, Any], folder: str, name: str, problems: list[Problem]
) -> bool:
    """Whether a file is what was committed, as far as is known."""
    if data is None:
        return False
    known = stats.get("files", {}).get(folder)
    if known is None:
        return True
    if len(data) != known["bytes"]:
        said = f"has {len(data):,} bytes, {known['bytes']:,} were committed"
    elif hashlib.sha256(data).hexdigest() != known["sha256"]:
        said = "is altered: its sha256 is not that which was committed"
    else:
        return True
    problems.append(Problem(name, said))
    return False


def _parse_rows(
    data: bytes | None, name: str, problems: list[Problem]
) -> list[dict[str, Any]] | None:
    try:
        table = pq.read_table(io.BytesIO(data or b""))
    except pa.ArrowException as error:
        problems.append(Problem(name, f"is not a Parquet file: {' '.join(str(error).split())}"))
        return None
    for field in LABEL_SCHEMA:
        if field.name not in table.schema.names:
            problems.append(Problem(name, f"has no column {field.name!r}"))
            return None
    return [dict(row) for row in table.to_pylist()]


def _check_ids(
    rows: Sequence[Mapping[str, Any]], expected: pa.Table, name: str
) -> Iterator[Problem]:
    found = [(row["image_id"], row["uri"]) for row in rows]
    wanted = list(zip(expected["image_id"].to_pylist(), expected["uri"].to_pylist(), strict=True))
    if found == wanted:
        return
    have, want = Counter(image for image, _ in found), Counter(image for image, _ in wanted)
    lost, more = want - have, have - want
    if lost:
        yield Problem(name, f"{lost.total():,} rows are lost, first {next(iter(lost))}")
    if more:
        first = next(iter(more))
        what = "twice" if first in want else "not the shard's"
        yield Problem(name, f"{more.total():,} rows are {what}, first {first}")
    if not lost and not more:
        yield Problem(name, "its rows are not in the order of the manifest, or of other URIs")


def _check_counts(
    rows: Sequence[Mapping[str, Any]], stats: Mapping[str, Any], name: str
) -> Iterator[Problem]:
    counts = dict(Counter(row["status"] for row in rows))
    if stats and (stats.get("rows") != len(rows) or stats.get("status") != counts):
        yield Problem(
            name, f"counts {stats.get('status')} in {stats.get('rows')} rows, found {counts}"
        )


def _members(data: bytes | None, name: str, problems: list[Problem]) -> dict[str, bytes] | None:
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data or b"")) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name in members:
                    problems.append(Problem(name, f"member {member.name!r} is there twice"))
                members[member.name] = file.read() if file else b""
    except tarfile.TarError as error:
        problems.append(Problem(name, f"is not a tar file: {error}"))
        return None
    return members
