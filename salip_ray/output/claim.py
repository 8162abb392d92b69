"""Claim an empty output, or resume one: the same rules for jobs, searches, trainings and exports.

An output has a record, its first file: a JSON file that names what made it. A location without a
record must be empty. An output with a record is resumed only by the command that made it; any other
command is refused with a list of what changed. One process at a time writes an output: it holds the
lease (:mod:`salip_ray.output.lease`) from before the claim until its last file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from salip_ray.errors import OutputError, ResumeError
from salip_ray.output.layout import LEASE
from salip_ray.output.lease import Lease, held
from salip_ray.output.store import Store

_SHOWN = 5  # changes in one message


@dataclass(frozen=True)
class Record:
    """What a command records in its output.

    Attributes:
        kind: what the output is of, for messages: ``job``, ``search``, ``training``, ``export``.
        file: name of the record.
        made_by: all that decides the content of the output; JSON-ready.
        key: field of the record that holds ``made_by``; None if its fields stand side by side with
            the others.
        before: further fields, written before ``made_by``; they may differ when resuming.
        after: further fields, written after it.
    """

    kind: str
    file: str
    made_by: Mapping[str, Any]
    key: str | None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Return the record of a new output."""
        made_by = dict(self.made_by) if self.key is None else {self.key: dict(self.made_by)}
        return {**self.before, **made_by, **self.after}

    def changes(self, earlier: Mapping[str, Any]) -> list[str]:
        """Return the differences to the record of an existing output, in words."""
        # Through JSON, so that tuples and numbers compare as they were written.
        now = json.loads(as_json(self.made_by))
        if self.key is not None:
            return list(differences(earlier[self.key], now))
        return list(differences({name: earlier.get(name) for name in now}, now))


@dataclass(frozen=True)
class Claim:
    """An output that this process may write.

    Attributes:
        lease: of the output; check it before files that another process may have written since.
        earlier: the earlier record of the output, or None if it was claimed just now.
    """

    lease: Lease
    earlier: Mapping[str, Any] | None


@contextlib.contextmanager
def claimed(store: Store, record: Record) -> Iterator[Claim]:
    """Hold the lease of an output that was claimed just now or is resumed.

    Args:
        store: the output.
        record: what this command records.

    Raises:
        OutputError: the location holds files but no record, or a damaged one; (ResumeError) another
            command made the output; or (LeaseError) another process writes it.
    """
    # Before a lease is written there.
    if read_record(store, record.kind, record.file, record.key) is None:
        require_empty(store, record.kind, record.file)
    with held(store) as lease:
        yield Claim(lease, claim_or_resume(store, record))


def claim_or_resume(store: Store, record: Record) -> dict[str, Any] | None:
    """Claim an empty output, or check that an existing one was made by the same command.

    Args:
        store: the output.
        record: what this command records.

    Returns:
        The earlier record of the output, or None if it was claimed just now.

    Raises:
        OutputError: the location holds files but no record, or a damaged one.
        ResumeError: another command made the output.
    """
    earlier = read_record(store, record.kind, record.file, record.key)
    if earlier is None:
        require_empty(store, record.kind, record.file)
        # The first file of all: after a kill, the output is known to be this command's.
        store.write(record.file, as_json(record.content()))
    elif changes := record.changes(earlier):
        raise ResumeError(refusal(store, record.kind, changes))
    return earlier


def read_record(store: Store, kind: str, file: str, key: str | None) -> dict[str, Any] | None:
    """Return the record of an output, or None if there is none.

    Raises:
        OutputError: the record is damaged.
    """
    data = store.read(file)
    if data is None:
        return None
    try:
        record = json.loads(data)
        valid = isinstance(record, dict) and (key is None or isinstance(record[key], dict))
    except (ValueError, KeyError):
        valid = False
    if not valid:
        raise OutputError(f"{store.path_of(file)} is not the record of a {kind} of salip-ray")
    return dict(record)


def require_empty(store: Store, kind: str, file: str) -> None:
    """Raise OutputError if a location without a record holds files."""
    if others := [name for name in store.names() if name != LEASE]:
        raise OutputError(
            f"output {store} is not empty and holds no {kind} of salip-ray (it has "
            f"{others[0]!r}, but no {file}): give an empty or new location"
        )


def refusal(
    store: Store,
    kind: str,
    changes: Sequence[str],
    advice: str = "use the original command to resume",
) -> str:
    """Return the message that refuses to resume the output of another command.

    Args:
        store: the output.
        kind: of the output.
        changes: what differs, in words.
        advice: how to go on in this output.
    """
    shown = "; ".join(changes[:_SHOWN])
    if len(changes) > _SHOWN:
        shown += f"; and {len(changes) - _SHOWN} more"
    return (
        f"output {store} was created by another {kind}. Changed: {shown}. "
        f"Either {advice}, or give another output"
    )


def differences(before: Any, now: Any, at: str = "") -> Iterator[str]:
    """Yield the differences between two JSON values, field by field, in words."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            path = key if at in {"", "recipe"} else f"{at}.{key}"
            yield from differences(before.get(key), now.get(key), path)
    elif before != now:
        yield f"{at} was {_short(before)}, is {_short(now)}"


def _short(value: Any, limit: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def as_json(data: Any) -> bytes:
    """Return data as indented JSON text in UTF-8."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
