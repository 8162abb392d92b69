"""Fetch the bytes of many files together; an error of one file does not affect the others.

A file is never read beyond a limit, and must be the one that was listed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.sources.archives import ArchiveFileSystem
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.local_files import NotRegularError, etag_of, open_regular
from salip_ray.sources.locations import (
    filesystem,
    is_remote,
    normalise,
    path_in,
    public_uri,
    version_of,
)
from salip_ray.sources.reads import (
    DamagedError,
    ListedVersion,
    Read,
    RefusedError,
    checked,
    etag_in,
    require_size,
    require_version,
)
from salip_ray.sources.remote_readers import read_remote_files
from salip_ray.sources.stores import (
    ATTEMPTS,
    FIRST_PAUSE,
    describe_error,
    http_status,
    is_retryable,
    pause,
)

__all__ = ["ListedVersion", "fetch_all"]

#: Schemes whose paths name the whole place. Elsewhere a path means another file on another host.
_WHOLE_PATHS = frozenset({"http", "https", "s3", "gs", "gcs"})
_MAX_BYTES = ImageConfig().max_bytes
_UNKNOWN = ListedVersion()


def fetch_all(
    addresses: Sequence[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    versions: Sequence[ListedVersion] | None = None,
    max_bytes: int = _MAX_BYTES,
    attempts: int = ATTEMPTS,
    first_pause: float = FIRST_PAUSE,
) -> list[bytes | Exception]:
    """Return the bytes of each address, in order, or the exception that its fetch ended with.

    Errors that may pass (time-outs, 5xx, throttling, bytes that arrive damaged) are retried
    ``attempts`` times with growing pauses; a missing file or a refusal is final at once. An error's
    message names public URIs only.

    Args:
        addresses: what to fetch.
        storage_options: fsspec's.
        versions: of each address, as listed: a file that is another one by now is an error.
        max_bytes: a larger file is an error, and is not read to its end.
        attempts: how often a file is asked for.
        first_pause: seconds before the second attempt.
    """
    known = versions or [_UNKNOWN] * len(addresses)
    reads = [Read(a, max_bytes, v) for a, v in zip(addresses, known, strict=True)]
    results: list[bytes | Exception] = [ImageError("not fetched")] * len(reads)
    pending = list(range(len(reads)))
    for attempt in range(attempts):
        if attempt:
            pause(attempt - 1, first_pause)
        fetched = _fetch_once([reads[index] for index in pending], storage_options)
        for index, result in zip(pending, fetched, strict=True):
            results[index] = result
        pending = [index for index in pending if is_retryable(results[index])]
        if not pending:
            break
    return [
        _explained(result, address) if isinstance(result, Exception) else result
        for address, result in zip(addresses, results, strict=True)
    ]


def _fetch_once(
    reads: Sequence[Read], storage_options: Mapping[str, Any] | None
) -> list[bytes | Exception]:
    results: list[bytes | Exception] = [ImageError("not fetched")] * len(reads)
    groups: dict[str, list[int]] = {}
    for index, read in enumerate(reads):
        groups.setdefault(_filesystem_of(read.address), []).append(index)
    for indices in groups.values():
        group = [reads[index] for index in indices]
        for index, result in zip(indices, _read_group(group, storage_options), strict=True):
            results[index] = result
    return results


def _filesystem_of(address: str) -> str:
    """Return a name that is the same for addresses that one filesystem is asked for together."""
    uri = normalise(address)
    if not is_remote(uri):
        return ""
    scheme, _, rest = uri.partition("://")
    archive = split_member(uri)[1]
    host = "" if archive or scheme in _WHOLE_PATHS else rest.partition("/")[0]
    return f"{scheme}://{host}::{archive}"


def _read_group(
    reads: Sequence[Read], storage_options: Mapping[str, Any] | None
) -> list[bytes | Exception]:
    """Read files of one filesystem, concurrently if it can."""
    archive = split_member(normalise(reads[0].address))[1]
    try:
        if not archive:
            return _read_files(filesystem(reads[0].address, storage_options)[0], reads)
        store, path = filesystem(archive, storage_options)
        before = version_of(store.info(path))
        results = _read_files(filesystem(reads[0].address, storage_options)[0], reads)
        if before == version_of(store.info(path)):
            return [
                result if read.version.etag in {None, before} else _changed(archive)
                for read, result in zip(reads, results, strict=True)
            ]
        return [_changed(archive)] * len(reads)
    except Exception as error:  # noqa: BLE001  (any error is the result)
        return [error] * len(reads)


def _changed(archive: str) -> RefusedError:
    return RefusedError(
        f"archive {public_uri(archive)} was changed after it was listed: label it into a new output"
    )


def _read_files(fs: Any, reads: Sequence[Read]) -> list[bytes | Exception]:
    """Return the bytes of each file, or the exception that reading it ended with.

    Not with ``fs.cat``: it takes a ``*``, ``?`` or ``[`` in a name for a pattern, and it has no
    limit.
    """
    if isinstance(fs, AsyncFileSystem):
        return read_remote_files(fs, reads)
    # The others are not asked from threads: members of an archive share a file, FTP a connection.
    results: dict[int, bytes | Exception] = {}
    for index in _in_order(fs, reads):
        try:
            read = reads[index]
            results[index] = (
                _read_local(read) if isinstance(fs, LocalFileSystem) else _read_other(fs, read)
            )
        except Exception as error:  # noqa: BLE001  (any error is the result)
            results[index] = error
    return [results[index] for index in range(len(reads))]


def _in_order(fs: Any, reads: Sequence[Read]) -> list[int]:
    order = list(range(len(reads)))
    if isinstance(fs, ArchiveFileSystem):
        # Going back in a compressed tar unpacks it from the start.
        order.sort(key=lambda index: fs.offset(path_in(fs, reads[index].address)))
    return order


def _read_local(read: Read) -> bytes:
    path = path_in(LocalFileSystem(), read.address)
    if "\0" in path:
        raise RefusedError(f"no file can have this name: {path!r} holds a NUL")
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        require_version(read, etag_of(status))
        require_size(read, status.st_size)
        data = bytes(file.read(min(status.st_size, read.limit) + 1))
        require_version(read, etag_of(os.fstat(file.fileno())))
    return checked(read, data)


def _read_other(fs: Any, read: Read) -> bytes:
    path = path_in(fs, read.address)
    size = fs.info(path).get("size") if isinstance(fs, ArchiveFileSystem) else read.version.size
    if size is not None:
        require_size(read, size)
    data = bytes(fs.cat_file(path, end=min(read.limit, read.limit if size is None else size) + 1))
    if read.version.etag is not None and not isinstance(fs, ArchiveFileSystem):
        require_version(read, etag_in(fs.info(path)))
    return checked(read, data)


def _explained(error: Exception, address: str) -> ImageError:
    """Return an ImageError with a clear message that holds no credentials."""
    uri = public_uri(address)
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{uri} does not exist")
    if isinstance(error, PermissionError):
        return ImageError(f"access to {uri} was refused")
    if isinstance(error, IsADirectoryError):
        return ImageError(f"{uri} is a folder")
    if isinstance(error, RefusedError | NotRegularError):
        return ImageError(str(error))
    if isinstance(error, DamagedError):
        return ImageError(f"{uri} could not be fetched: {error}")
    # An HTTP status and a message of this package are clear without the type of the exception.
    plain = isinstance(error, InputError) or http_status(error) is not None
    kind = "" if plain else f"{type(error).__name__}: "
    return ImageError(f"{uri} could not be fetched: {kind}{describe_error(error, address)}")
