"""Check one committed shard: its files, their checksums, its rows and its label maps."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.config import PrivacyConfig
from salip_ray.output.layout import (
    MASKS,
    SHARDS,
    STATS,
    SUFFIXES,
    description_member,
    label_map_member,
    shard_file,
)
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify_row import check_members, check_row
from salip_ray.schema import LABEL_SCHEMA
from salip_ray.sources.privacy import hides_uri, pseudonym


@dataclass(frozen=True)
class Problem:
    """A file or row that is not as the format guarantees, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class CheckedShard:
    """Number of rows and label maps that were checked in a shard, and its problems."""

    rows: int
    label_maps: int
    problems: tuple[Problem, ...]

    @classmethod
    def check(cls, labels: LabelOutput, shard: int, expected: pa.Table) -> CheckedShard:
        """Check the files of a committed shard.

        Args:
            labels: the output.
            shard: the number of the shard.
            expected: ``image_id`` and ``uri`` of its rows in the manifest.

        Raises:
            StoreError: a file cannot be read.
        """
        names = {folder: shard_file(folder, shard) for folder in SUFFIXES}
        problems: list[Problem] = []
        data = {folder: labels.read(name) for folder, name in names.items()}
        stats = _parse_stats(data[STATS], names[STATS], problems)
        sound = {
            folder: _check_file(data[folder], stats, folder, names[folder], problems)
            for folder in (SHARDS, MASKS)
        }
        rows = _parse_rows(data[SHARDS], names[SHARDS], problems) if sound[SHARDS] else None
        if rows is None:
            return cls(0, 0, tuple(problems))
        problems += _check_ids(rows, expected, names[SHARDS], labels.privacy)
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
        return cls(len(rows), label_maps, tuple(problems))


def _parse_stats(data: bytes | None, name: str, problems: list[Problem]) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError):
        problems.append(Problem(name, "is not valid JSON"))
        return {}


def _check_file(
    data: bytes | None, stats: Mapping[str, Any], folder: str, name: str, problems: list[Problem]
) -> bool:
    """Return True if a file has the size and checksum that its statistics record, if any."""
    if data is None:
        return False
    recorded = stats.get("files", {}).get(folder)
    if recorded is None:
        return True
    if len(data) != recorded["bytes"]:
        what = f"has {len(data):,} bytes, {recorded['bytes']:,} were committed"
    elif hashlib.sha256(data).hexdigest() != recorded["sha256"]:
        what = "is altered: its sha256 differs from that of the commit"
    else:
        return True
    problems.append(Problem(name, what))
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
    rows: Sequence[Mapping[str, Any]], stats: Mapping[str, Any], name: str
) -> Iterator[Problem]:
    counts = dict(Counter(row["status"] for row in rows))
    if stats and (stats.get("rows") != len(rows) or stats.get("status") != counts):
        yield Problem(
            name,
            f"counts {stats.get('status')} in {stats.get('rows')} rows, but the shard has {counts}",
        )


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
