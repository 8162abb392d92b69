"""Fetching the bytes of many files at once, one failure never costing the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salip_ray.errors import ImageError
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.locations import filesystem, is_remote, normalise, public_uri
from salip_ray.sources.stores import (
    ATTEMPTS,
    FIRST_PAUSE,
    http_status,
    may_pass,
    pause,
    read_each,
    said,
)

#: Schemes whose paths name the whole place. Elsewhere a path means another file on another host.
_WHOLE_PATHS = frozenset({"http", "https", "s3", "gs", "gcs"})


def fetch_all(
    addresses: Sequence[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    attempts: int = ATTEMPTS,
    first_pause: float = FIRST_PAUSE,
) -> list[bytes | Exception]:
    """The bytes of each address, in order, or the exception that its fetch ended with.

    What may pass (time-outs, 5xx, throttling) is tried ``attempts`` times with growing pauses; a
    missing file or a refusal is final at once. An error's message names public URIs only.
    """
    results: list[bytes | Exception] = [ImageError("not fetched")] * len(addresses)
    pending = list(range(len(addresses)))
    for attempt in range(attempts):
        if attempt:
            pause(attempt - 1, first_pause)
        fetched = _fetch_once([addresses[index] for index in pending], storage_options)
        for index, result in zip(pending, fetched, strict=True):
            results[index] = result
        pending = [index for index in pending if may_pass(results[index])]
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
            remote.setdefault(_filesystem_of(address), []).append(index)
        else:
            results[index] = _read_local(address)
    for indices in remote.values():
        group = [addresses[index] for index in indices]
        for index, result in zip(indices, _cat(group, storage_options), strict=True):
            results[index] = result
    return results


def _filesystem_of(address: str) -> str:
    """The same for addresses that one filesystem can be asked for together."""
    uri = normalise(address)
    scheme, _, rest = uri.partition("://")
    archive = split_member(uri)[1]
    host = "" if archive or scheme in _WHOLE_PATHS else rest.partition("/")[0]
    return f"{scheme}://{host}::{archive}"


def _read_local(address: str) -> bytes | Exception:
    try:
        return Path(normalise(address)).read_bytes()
    except OSError as error:
        return error
    except ValueError as error:  # a NUL in it
        return ImageError(f"no file can have this name ({error})")


def _cat(
    addresses: Sequence[str], storage_options: Mapping[str, Any] | None
) -> list[bytes | Exception]:
    """Fetch addresses of one filesystem, concurrently where it can."""
    try:
        fs, _ = filesystem(addresses[0], storage_options)
        paths = [fs._strip_protocol(split_member(normalise(a))[0]) for a in addresses]
        found = read_each(fs, paths)
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises is the result)
        return [error] * len(addresses)
    return [found[path] for path in paths]


def _explained(error: Exception, address: str) -> ImageError:
    """An ImageError that says what happened without an address that could hold a signature."""
    uri = public_uri(address)
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{uri} does not exist")
    if isinstance(error, PermissionError):
        return ImageError(f"access to {uri} was refused")
    if isinstance(error, IsADirectoryError):
        return ImageError(f"{uri} is a folder")
    # Of an answer that is an error the status says it all, as of what is raised here the message.
    plain = isinstance(error, ImageError) or http_status(error) is not None
    kind = "" if plain else f"{type(error).__name__}: "
    return ImageError(f"{uri} could not be fetched: {kind}{said(error, address)}")
