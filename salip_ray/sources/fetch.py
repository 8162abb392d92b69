"""Fetching the bytes of many files at once, one failure never costing the others."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salip_ray.errors import ImageError
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.locations import filesystem, is_remote, normalise, public_uri

ATTEMPTS = 4
_FIRST_PAUSE = 0.5  # seconds; doubled after each attempt
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImageError)


def fetch_all(
    addresses: Sequence[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    attempts: int = ATTEMPTS,
    first_pause: float = _FIRST_PAUSE,
) -> list[bytes | Exception]:
    """The bytes of each address, in order, or the exception that its fetch ended with.

    What may pass (time-outs, 5xx, throttling) is tried ``attempts`` times with growing pauses; a
    missing file or a refusal is final at once. An error's message names public URIs only.
    """
    results: list[bytes | Exception] = [ImageError("not fetched")] * len(addresses)
    pending = list(range(len(addresses)))
    for attempt in range(attempts):
        if attempt:
            # Jitter, so that a fleet that was throttled together does not come back together.
            time.sleep(first_pause * 2 ** (attempt - 1) * random.uniform(1.0, 1.5))  # noqa: S311
        fetched = _fetch_once([addresses[index] for index in pending], storage_options)
        for index, result in zip(pending, fetched, strict=True):
            results[index] = result
        pending = [
            index
            for index in pending
            if isinstance(results[index], Exception) and not isinstance(results[index], _FINAL)
        ]
        if not pending:
            break
    return [
        _explained(result, address) if isinstance(result, Exception) else result
        for address, result in zip(addresses, results, strict=True)
    ]


def _fetch_once(
    addresses: Sequence[str], storage_options: Mapping[str, Any] | None
) -> list[bytes | Exception]:
    results: list[bytes | Exception] = [ImageError("not fetched")] * len(addresses)
    remote: dict[str, list[int]] = {}
    for index, address in enumerate(addresses):
        if is_remote(address):
            scheme, archive = address.partition("://")[0].lower(), split_member(address)[1]
            remote.setdefault(f"{scheme}::{archive}", []).append(index)
        else:
            results[index] = _read_local(address)
    for indices in remote.values():
        group = [addresses[index] for index in indices]
        for index, result in zip(indices, _cat(group, storage_options), strict=True):
            results[index] = result
    return results


def _read_local(address: str) -> bytes | Exception:
    try:
        return Path(normalise(address)).read_bytes()
    except OSError as error:
        return error


def _cat(
    addresses: Sequence[str], storage_options: Mapping[str, Any] | None
) -> list[bytes | Exception]:
    """Fetch addresses of one scheme concurrently."""
    try:
        fs, _ = filesystem(addresses[0], storage_options)
        paths = [fs._strip_protocol(split_member(normalise(a))[0]) for a in addresses]
        found = fs.cat(sorted(set(paths)), on_error="return", **_knobs(fs))
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises is the result)
        return [error] * len(addresses)
    if isinstance(found, bytes):  # fsspec's answer to a lone path
        return [found] * len(addresses)
    return [found.get(path, FileNotFoundError(path)) for path in paths]


def _knobs(fs: Any) -> dict[str, Any]:
    """Options of a filesystem's ``cat`` for many small objects."""
    # s3fs cuts large objects into ranges, and asks for the size of every object before. Images are
    # small: one request each, instead of two, is up to three times the objects a second.
    return {"max_concurrency": 1} if "s3" in fs.protocol else {}


def _explained(error: Exception, address: str) -> ImageError:
    """An ImageError that says what happened without an address that could hold a signature."""
    uri = public_uri(address)
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{uri} does not exist")
    if isinstance(error, PermissionError):
        return ImageError(f"access to {uri} was refused")
    if isinstance(error, IsADirectoryError):
        return ImageError(f"{uri} is a folder")
    said = " ".join(str(error).replace(address, uri).split())
    return ImageError(f"{uri} could not be fetched: {type(error).__name__}: {said}")
