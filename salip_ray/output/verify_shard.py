"""What is promised of one committed shard: its files, their checksums, its rows and label maps."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.config import PrivacyConfig
from salip_ray.errors import OutputError
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify_row import check_members, check_row
from salip_ray.schema import LABEL_SCHEMA
from salip_ray.sources.locations import join
from salip_ray.sources.privacy import hides_uri, pseudonym
from salip_ray.sources.stores import persistently, said, uncovered

#: Folder and suffix of a shard's files.
FILES = {"shards": "parquet", "masks": "tar", "stats": "json"}
_MEMBER = re.compile(r"([0-9a-f]{32})\.(mask\.png|json)")


@dataclass(frozen=True)
class Problem:
    """A promise that is broken: the file or row, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class CheckedShard:
    """What was checked of a shard, and what is wrong with it."""

    rows: int
    label_maps: int
    problems: tuple[Problem, ...]

    @classmethod
    def check(cls, labels: LabelOutput, shard: int, expected: pa.Table) -> CheckedShard:
        """Check the files of a committed shard against its part of the manifest.

        Raises:
            OutputError: the store does not let one of them be read.
        """
        names = {f: f"{f}/part-{shard:05d}.{suffix}" for f, suffix in FILES.items()}
        problems: list[Problem] = []
        data = {folder: _read(labels, name) for folder, name in names.items()}
        stats = _parse_stats(data["stats"], names["stats"], problems)
        sound = {
            folder: _check_file(data[folder], stats, folder, names[folder], problems)
            for folder in ("shards", "masks")
        }
        rows = _parse_rows(data["shards"], names["shards"], problems) if sound["shards"] else None
        if rows is None:
            return cls(0, 0, tuple(problems))
        problems += _check_ids(rows, expected, names["shards"], _privacy(labels))
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


def _privacy(labels: LabelOutput) -> PrivacyConfig:
    return PrivacyConfig.model_validate(labels.run["fingerprint"]["recipe"].get("privacy", {}))


def _read(labels: LabelOutput, name: str) -> bytes | None:
    try:
        return bytes(persistently(lambda: labels._fs.cat_file(join(labels._root, name))))
    except FileNotFoundError:
        return None  # said already, by name
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
        # Of a file that did not come nobody knows whether it is as promised.
        where, problem = join(labels.uri, name), said(uncovered(error), labels.uri)
        raise OutputError(f"{where} could not be checked: {problem}") from None


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
        wrong = f"has {len(data):,} bytes, {known['bytes']:,} were committed"
    elif hashlib.sha256(data).hexdigest() != known["sha256"]:
        wrong = "is altered: its sha256 is not that which was committed"
    else:
        return True
    problems.append(Problem(name, wrong))
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
    found = [(row["image_id"], row["uri"]) for row in rows]
    wanted = [
        (
            row["image_id"],
            pseudonym(row["image_id"]) if hides_uri(row["uri"], privacy) else row["uri"],
        )
        for row in expected.select(["image_id", "uri"]).to_pylist()
    ]
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
