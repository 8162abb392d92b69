"""What the clients of stores return and raise: versions of files, refused writes, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from salip_ray.sources.stores import underlying_error

#: Identifies the content of a file; it changes with each write.
Version = tuple[str, ...]

_VERSION_FIELDS = ("size", "mtime", "LastModified", "updated", "last_modified", "ETag", "etag")
_REFUSED_CONDITION = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_SECRET_OPTION = re.compile(r"secret|key|token|pass|credential|connection_string|sas", re.I)
_SHORTEST_SECRET = 6  # a shorter value could be part of any word


def name_of(path: str) -> str:
    """Return the last part of a path."""
    return path.rstrip("/").rpartition("/")[2]


def version_of(entry: Mapping[str, Any]) -> Version:
    """Return the version of a file, given its description by a filesystem."""
    return tuple(str(entry.get(field)) for field in _VERSION_FIELDS)


def require_missing(error: FileNotFoundError) -> None:
    """Raise the error behind ``error`` if that is something else than a missing file."""
    cause = underlying_error(error)
    if cause is not error:
        raise cause


def is_refused_condition(error: BaseException) -> bool:
    """Return True if a store refused a write because of its condition."""
    if isinstance(error, FileExistsError):
        return True
    causes = (error, error.__cause__)
    responses = (getattr(cause, "response", None) for cause in causes)
    codes = (r["Error"].get("Code") for r in responses if isinstance(r, Mapping) and "Error" in r)
    return any(code in _REFUSED_CONDITION for code in codes)


def secrets_of(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of storage options that no message may show."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from secrets_of(value)
        elif _SECRET_OPTION.search(name) and len(secret := str(value)) >= _SHORTEST_SECRET:
            yield secret
