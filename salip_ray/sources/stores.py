"""Read many files of a store, retry what may pass, and describe errors without secrets.

Each store's client has its own errors. Few of them are an OSError, and some hold the address with
its signature.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem

from salip_ray.errors import SalipError
from salip_ray.sources.credentials import without_queries
from salip_ray.sources.locations import normalise, public_uri

ATTEMPTS = 4
FIRST_PAUSE = 0.5  # seconds; doubled after each attempt
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, SalipError)
_PASSING = frozenset({408, 429})  # of HTTP's 4xx: took too long, too many requests
_GONE = frozenset({404, 410})
T = TypeVar("T")


def read_each(fs: Any, paths: Iterable[str]) -> dict[str, bytes | Exception]:
    """Return the bytes at each path of a filesystem, or the error of its client.

    Not ``fs.cat``, which takes a ``*``, ``?`` or ``[`` in a name for a pattern, and asks which
    files it means: a name with a ``[`` finds nothing, a signed URL costs a request more.
    """
    names = sorted(set(paths))
    if isinstance(fs, AsyncFileSystem):
        results = fs.cat_ranges(names, None, None, on_error="return", **_settings(fs))
        return dict(zip(names, results, strict=True))
    # The others are not asked from threads: members of an archive share a file, FTP a connection.
    return {name: _read(fs, name) for name in names}


def read_existing(
    fs: Any, paths: Iterable[str], *, attempts: int = ATTEMPTS
) -> dict[str, bytes | Exception]:
    """Return the bytes at each path that exists, or the last error of the client.

    Only the files that failed are retried.
    """
    results: dict[str, bytes | Exception] = {}
    pending = set(paths)
    for attempt in range(attempts):
        if attempt:
            pause(attempt - 1)
        results |= read_each(fs, pending)
        pending = {path for path in pending if is_retryable(results[path])}
        if not pending:
            break
    return {path: data for path, data in results.items() if not isinstance(data, FileNotFoundError)}


def is_retryable(result: bytes | Exception) -> bool:
    """Return True for an error that the same request may not meet again."""
    return isinstance(result, Exception) and not is_final(result)


def _read(fs: Any, path: str) -> bytes | Exception:
    try:
        return bytes(fs.cat_file(path))
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises is the result)
        return error


def _settings(fs: Any) -> dict[str, Any]:
    """Return the options of a filesystem for many small files."""
    # s3fs asks for the size of an object before it reads it. One request is up to twice as fast.
    return {"max_concurrency": 1} if "s3" in fs.protocol else {}


def with_retries(
    action: Callable[[], T], *, attempts: int = ATTEMPTS, first_pause: float = FIRST_PAUSE
) -> T:
    """Call `action`, again after an error that may pass; raise the last attempt's error."""
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
    """Return True if the same request would fail again: no such file, refused, a bad request."""
    status = http_status(error)
    refused = status is not None and 400 <= status < 500 and status not in _PASSING
    return refused or isinstance(error, _FINAL)


def http_status(error: BaseException | None) -> int | None:
    """Return the status of a web server's answer, or None if the error is another one."""
    from aiohttp import ClientResponseError  # seldom needed, and slow to import

    return error.status if isinstance(error, ClientResponseError) else None


def underlying_error(error: Exception) -> Exception:
    """Return the cause of an error if the client raised a misleading one.

    fsspec opens a URL by asking for its size, and reports a time-out or a refusal as a missing
    file.
    """
    from aiohttp import ClientError

    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, ClientError | TimeoutError):
        return error if http_status(cause) in _GONE else cause
    return error


def describe_error(error: BaseException, address: str = "") -> str:
    """Return the message of an error in one line, without what gives access.

    Args:
        error: any exception.
        address: of the file; its public URI is shown instead.
    """
    from aiohttp import ClientResponseError

    if isinstance(error, ClientResponseError):  # its text holds the URL, quoted in another way
        text = f"HTTP {error.status} {error.message}"
    else:
        text = str(error)
        for spelling in (address, normalise(address)) if address else ():
            text = text.replace(spelling, public_uri(address))
    return without_queries(" ".join(text.split())) or type(error).__name__
