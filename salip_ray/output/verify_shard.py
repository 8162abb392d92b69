"""Check one committed shard: its files, their checksums, its rows and its label maps."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.config import PrivacyConfig
from salip_ray.errors import OutputError
from salip_ray.output.commit import NEXT, recorded_checksums
from salip_ray.output.layout import (
    MANIFEST,
    MASKS,
    SEAL,
    SHARDS,
    STATS,
    SUFFIXES,
    description_member,
    label_map_member,
    shard_file,
)
from salip_ray.output.reader import LabelOutput
from salip_ray.output.summary import read_statistics
from salip_ray.output.verify_row import check_members, check_row
from salip_ray.schema import label_schema
from salip_ray.sources.privacy import hides_uri, pseudonym
from salip_ray.wording import one_line


@dataclass(frozen=True)
class Problem:
    """A file or row that is not as the format guarantees, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class CheckedShard:
    """Number of rows and label maps that were checked in a shard, and its problems.

    ``statistics`` are those of its file, None if they are missing or damaged.
    """

    rows: int
    label_maps: int
    problems: tuple[Problem, ...]
    statistics: Mapping[str, Any] | None = None

    @classmethod
    def check(
        cls,
        labels: LabelOutput,
        shard: int,
        expected: pa.Table,
        sealed: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        partial: bool = False,
    ) -> CheckedShard:
        """Check the files of a committed shard.

        Args:
            labels: the output.
            shard: the number of the shard.
            expected: its rows in the manifest.
            sealed: size and SHA-256 of each sealed file, None if the output is not sealed.
            partial: accept a rewrite that was interrupted.

        Raises:
            StoreError: a file cannot be read.
        """
        names = {folder: shard_file(folder, shard) for folder in SUFFIXES}
        problems: list[Problem] = []
        data = {folder: labels.read(name) for folder, name in names.items()}
        stats = _check_statistics(labels, data[STATS], names[STATS], shard, sealed, problems)
        sound = {
            folder: _check_file(data[folder], stats, folder, names[folder], problems)
            for folder in (SHARDS, MASKS)
        }
        rows = None
        if sound[SHARDS]:
            schema = label_schema(labels.run["schema_version"])
            rows = _parse_rows(data[SHARDS], schema, names[SHARDS], problems)
        if rows is None:
            return cls(0, 0, tuple(problems), stats)
        problems += _check_ids(rows, expected, names[SHARDS], labels.privacy)
        if stats is not None and NEXT in stats:
            # Until the rewrite is finished, the files of the shard need not fit together.
            if not partial:
                what = "a rewrite of the shard was interrupted: run salip-ray retry again"
                problems.append(Problem(names[STATS], what))
            return cls(len(rows), 0, tuple(problems), stats)
        problems += _check_counts(rows, stats, names[STATS])
        members = _read_members(data[MASKS], names[MASKS], problems) if sound[MASKS] else None
        classes = labels.classes
        label_maps = 0
        for row in rows:
            where = f"{names[SHARDS]} row {row['image_id']}"
            problems += (Problem(where, what) for what in check_row(row, classes))
            if members is not None:
                where = f"{names[MASKS]} key {row['image_id']}"
                problems += (Problem(where, what) for what in check_members(row, members, classes))
                label_maps += row["status"] != "error"
        if members is not None:
            problems += _check_surplus_members(members, rows, names[MASKS])
        return cls(len(rows), label_maps, tuple(problems), stats)


def _check_statistics(
    labels: LabelOutput,
    data: bytes | None,
    name: str,
    shard: int,
    sealed: Mapping[str, Mapping[str, Any]] | None,
    problems: list[Problem],
) -> dict[str, Any] | None:
    """Return the statistics of a shard, or None if they are missing or damaged."""
    if data is None:
        return None  # reported with the names of the files
    if sealed is not None:
        if name not in sealed:
            problems.append(Problem(name, f"has no checksum in {SEAL}"))
        elif what := check_checksum(data, [sealed[name]], f"that of {SEAL}"):
            problems.append(Problem(name, what))
    try:
        stats = read_statistics(labels.store.path_of(name), data)
    except OutputError:
        problems.append(Problem(name, "is damaged: it lacks what every shard records"))
        return None
    if stats.get("shard") != shard:
        problems.append(Problem(name, f"is of shard {stats.get('shard')!r}"))
    problems += [
        Problem(name, f"records no checksum of {shard_file(folder, shard)}")
        for folder in (SHARDS, MASKS)
        if not recorded_checksums(stats, folder)
    ]
    return stats


def _check_file(
    data: bytes | None,
    stats: Mapping[str, Any] | None,
    folder: str,
    name: str,
    problems: list[Problem],
) -> bool:
    """Return True if a file has a checksum that its statistics record, if they record any."""
    if data is None:
        return False
    recorded = [] if stats is None else recorded_checksums(stats, folder)
    what = check_checksum(data, recorded, "that of the commit") if recorded else None
    if what is not None:
        problems.append(Problem(name, what))
    return what is None


def check_checksum(data: bytes, recorded: Sequence[Mapping[str, Any]], source: str) -> str | None:
    """Return what is wrong with the size or SHA-256 of a file, or None.

    Args:
        data: content of the file.
        recorded: the checksums that it may have; at least one.
        source: where they are recorded, for the message.
    """
    sizes = {item.get("bytes") for item in recorded}
    if len(data) not in sizes:
        return f"has {len(data):,} bytes, but {' or '.join(map(str, sizes))} were committed"
    if hashlib.sha256(data).hexdigest() not in {item.get("sha256") for item in recorded}:
        return f"is altered: its sha256 differs from {source}"
    return None


def _parse_rows(
    data: bytes | None, schema: pa.Schema, name: str, problems: list[Problem]
) -> list[dict[str, Any]] | None:
    try:
        table = pq.read_table(io.BytesIO(data or b""))
    except pa.ArrowException as error:
        problems.append(Problem(name, f"is not a Parquet file: {one_line(error)}"))
        return None
    problems += [
        Problem(name, f"has a column {column!r}, which no shard has")
        for column in table.schema.names
        if column not in schema.names
    ]
    for field in schema:
        if field.name not in table.schema.names:
            problems.append(Problem(name, f"has no column {field.name!r}"))
            return None
        if table.schema.field(field.name).type != field.type:
            problems.append(Problem(name, f"has another type of column {field.name!r}"))
            return None
    return [dict(row) for row in table.to_pylist()]


def _check_ids(
    rows: Sequence[Mapping[str, Any]], expected: pa.Table, name: str, privacy: PrivacyConfig
) -> Iterator[Problem]:
    actual = [(row["image_id"], row["uri"]) for row in rows]
    wanted = [
        (
            row["image_id"],
            pseudonym(row["image_id"]) if hides_uri(row["uri"], privacy) else row["uri"],
        )
        for row in expected.select(["image_id", "uri"]).to_pylist()
    ]
    if actual == wanted:
        slices = [(row["volume"], row["slice"]) for row in expected.to_pylist()]
        for row, of_manifest in zip(rows, slices, strict=True):
            if (row["volume"], row["slice"]) != of_manifest:
                yield Problem(
                    f"{name} row {row['image_id']}",
                    f"is slice {row['slice']} of volume {row['volume']}, {MANIFEST} has slice "
                    f"{of_manifest[1]} of volume {of_manifest[0]}",
                )
        return
    have, want = Counter(image for image, _ in actual), Counter(image for image, _ in wanted)
    lost, surplus = want - have, have - want
    if lost:
        yield Problem(name, f"{_rows(lost.total())} lost, the first is {next(iter(lost))}")
    if surplus:
        first = next(iter(surplus))
        what = "twice" if first in want else "not the shard's"
        yield Problem(name, f"{_rows(surplus.total())} {what}, the first is {first}")
    if not lost and not surplus:
        yield Problem(name, "its rows are not in the order of the manifest, or of other URIs")


def _rows(count: int) -> str:
    return f"{count:,} row is" if count == 1 else f"{count:,} rows are"


def _check_counts(
    rows: Sequence[Mapping[str, Any]], stats: Mapping[str, Any] | None, name: str
) -> Iterator[Problem]:
    if stats is None:
        return
    outcomes: dict[str, Counter[str]] = {}
    for row in rows:
        for item in row["outcomes"] or ():
            outcomes.setdefault(item["label"], Counter())[item["outcome"]] += 1
    counts = {
        "rows": len(rows),
        "status": dict(Counter(row["status"] for row in rows)),
        "errors": dict(Counter(row["error"]["stage"] for row in rows if row["error"])),
        "outcomes": {label: dict(counter) for label, counter in outcomes.items()},
    }
    for field, count in counts.items():
        if stats[field] != count:
            yield Problem(name, f"{field} is {stats[field]!r}, but the shard has {count!r}")


def _read_members(
    data: bytes | None, name: str, problems: list[Problem]
) -> dict[str, bytes] | None:
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


def _check_surplus_members(
    members: Mapping[str, bytes], rows: Sequence[Mapping[str, Any]], name: str
) -> Iterator[Problem]:
    ids = [row["image_id"] for row in rows]
    expected = {label_map_member(i) for i in ids} | {description_member(i) for i in ids}
    for member in members:
        if member not in expected:
            yield Problem(name, f"member {member!r} belongs to no row")
