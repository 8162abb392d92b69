"""Asking a store: many files at once, again where that may help, and errors without secrets.

Each store's client raises errors of its own. Few of them are an OSError, and some hold the address
that was asked for, signature and all.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem

from salip_ray.errors import SalipError
from salip_ray.sources.locations import normalise, public_uri

ATTEMPTS = 4
FIRST_PAUSE = 0.5  # seconds; doubled after each attempt
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, SalipError)
_PASSING = frozenset({408, 429})  # of HTTP's 4xx: took too long, too many requests
_GONE = frozenset({404, 410})
_ACCESS = re.compile(r"(https?://)(?:[^\s/?@]*@)?([^\s?]*)(?:\?\S*)?", re.IGNORECASE)
T = TypeVar("T")


def read_each(fs: Any, paths: Iterable[str]) -> dict[str, bytes | Exception]:
    """The bytes at each path of a filesystem, or what its client raised for it.

    Not ``fs.cat``, which takes a ``*``, ``?`` or ``[`` in a name for a pattern, and asks which
    files it means: a name with a ``[`` finds nothing, a signed URL costs a request more.
    """
    names = sorted(set(paths))
    if isinstance(fs, AsyncFileSystem):
        found = fs.cat_ranges(names, None, None, on_error="return", **_knobs(fs))
        return dict(zip(names, found, strict=True))
    # The others are not asked from threads: members of an archive share a file, FTP a connection.
    return {name: _read(fs, name) for name in names}


def read_existing(
    fs: Any, paths: Iterable[str], *, attempts: int = ATTEMPTS
) -> dict[str, bytes | Exception]:
    """The bytes at each of the paths that exists, or what its client raised to the end.

    Of many files a few fail now and then: only those are asked for again.
    """
    found: dict[str, bytes | Exception] = {}
    pending = set(paths)
    for attempt in range(attempts):
        if attempt:
            pause(attempt - 1)
        found |= read_each(fs, pending)
        pending = {path for path in pending if is_retryable(found[path])}
        if not pending:
            break
    return {path: data for path, data in found.items() if not isinstance(data, FileNotFoundError)}


def is_retryable(found: bytes | Exception) -> bool:
    """Whether it is what went wrong, and the same request may do better."""
    return isinstance(found, Exception) and not is_final(found)


def _read(fs: Any, path: str) -> bytes | Exception:
    try:
        return bytes(fs.cat_file(path))
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises is the result)
        return error


def _knobs(fs: Any) -> dict[str, Any]:
    """Options of a filesystem for many small files."""
    # s3fs cuts large objects into ranges, and asks for the size of every object before. Images are
    # small: one request each, instead of two, is up to twice the objects a second.
    return {"max_concurrency": 1} if "s3" in fs.protocol else {}


def with_retries(
    action: Callable[[], T], *, attempts: int = ATTEMPTS, first_pause: float = FIRST_PAUSE
) -> T:
    """Do it, again and again where what went wrong may pass; raise what the last attempt did."""
    for attempt in range(attempts):
        try:
            return action()
        except Exception as error:
            if attempt + 1 == attempts or is_final(error):
                raise
            pause(attempt, first_pause)
    raise AssertionError("unreachable")


def pause(attempt: int, first_pause: float = FIRST_PAUSE) -> None:
    """Wait after a failed attempt, the first of which is 0."""
    # Jitter, so that a fleet that was throttled together does not come back together.
    time.sleep(first_pause * 2**attempt * random.uniform(1.0, 1.5))  # noqa: S311


def is_final(error: BaseException) -> bool:
    """Whether the same request would fail again: a missing file, a refusal, a bad request."""
    status = http_status(error)
    refused = status is not None and 400 <= status < 500 and status not in _PASSING
    return refused or isinstance(error, _FINAL)


def http_status(error: BaseException | None) -> int | None:
    """The status that a web server answered with, if that is what went wrong."""
    from aiohttp import ClientResponseError  # seldom needed, and slow to import

    return error.status if isinstance(error, ClientResponseError) else None


def underlying_error(error: Exception) -> Exception:
    """What is behind an error.

    fsspec opens a URL by asking for its size, and calls the file missing whatever that came to: a
    FileNotFoundError may be a time-out or a refusal.
    """
    from aiohttp import ClientError

    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, ClientError | TimeoutError):
        return error if http_status(cause) in _GONE else cause
    return error


def describe_error(error: BaseException, address: str = "") -> str:
    """What an error says, in one line without what gives access.

    Args:
        error: whatever was raised.
        address: what was asked for; its public URI stands in its place.
    """
    from aiohttp import ClientResponseError

    if isinstance(error, ClientResponseError):  # its text holds the URL, quoted in another way
        text = f"HTTP {error.status} {error.message}"
    else:
        text = str(error)
        for spelling in (address, normalise(address)) if address else ():
            text = text.replace(spelling, public_uri(address))
    return _ACCESS.sub(r"\1\2", " ".join(text.split())) or type(error).__name__
