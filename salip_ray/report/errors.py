"""The error rows of an output, grouped by reason."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from salip_ray.output.reader import LabelOutput

_COLUMNS = ("image_id", "uri", "slice", "status", "error")
_CSV_COLUMNS = ("image_id", "uri", "slice", "stage", "type", "message")
_EXAMPLES = 3
_PATH = re.compile(r"\S*[/\\]\S+")
_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass(frozen=True, slots=True)
class RowError:
    """Why an image has no label.

    Attributes:
        uri: that of the row: a pseudonym if the run hid names.
        slice: the slice of its volume; None for other images.
        stage: the stage that failed: decode, propose, ...
        type: the type of the exception.
        message: what it said.
    """

    image_id: str
    uri: str
    slice: int | None
    stage: str
    type: str
    message: str


@dataclass
class ErrorGroup:
    """Errors of one stage and type whose messages differ in paths and numbers only.

    Attributes:
        first: the first of them.
        count: how many there are.
        uris: those of the first few, without repetition.
    """

    first: RowError
    count: int = 0
    uris: list[str] = field(default_factory=list)

    def add(self, error: RowError) -> None:
        """Count one more error."""
        self.count += 1
        if error.uri not in self.uris and len(self.uris) < _EXAMPLES:
            self.uris.append(error.uri)


def read_errors(output: LabelOutput) -> Iterator[RowError]:
    """Yield the error rows of the committed shards, in order."""
    for row in output.rows(columns=_COLUMNS):
        if row["status"] == "error":
            error = row["error"] or {}
            texts = (str(error.get(name) or "") for name in ("stage", "type", "message"))
            yield RowError(row["image_id"], row["uri"], row["slice"], *texts)


def group_errors(errors: Iterable[RowError]) -> list[ErrorGroup]:
    """Return the errors grouped by stage, type and message, the most frequent first."""
    groups: dict[tuple[str, str, str], ErrorGroup] = {}
    for error in errors:
        pattern = _NUMBER.sub("#", _PATH.sub("...", error.message))
        groups.setdefault((error.stage, error.type, pattern), ErrorGroup(error)).add(error)
    return sorted(groups.values(), key=lambda group: -group.count)


def write_csv(errors: Iterable[RowError], file: IO[str]) -> int:
    """Write one line per error; return the number of errors."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    count = 0
    for error in errors:
        writer.writerow([getattr(error, name) for name in _CSV_COLUMNS])
        count += 1
    return count
