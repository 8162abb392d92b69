"""A file to read: its limit, its version in the listing, and the checks of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from salip_ray.errors import ImageError
from salip_ray.sources.locations import public_uri


@dataclass(frozen=True)
class ListedVersion:
    """What a listing says about a file; None if it does not say."""

    size: int | None = None  # bytes
    etag: str | None = None


@dataclass(frozen=True)
class Read:
    """One file to read.

    Attributes:
        address: what to read.
        limit: bytes; a file with more is an error.
        version: as listed; another version of the file is an error.
    """

    address: str
    limit: int
    version: ListedVersion = ListedVersion()


class RefusedError(ImageError):
    """A file that must not be read; the message is complete."""


class DamagedError(OSError):
    """Bytes arrived that are not those of the file; the next try may do better."""


def checked(read: Read, data: bytes) -> bytes:
    """Return the data of a file, whose size must be within the limit and as listed.

    Raises:
        RefusedError: they are more than the limit.
        DamagedError: the size is not the listed one.
    """
    require_size(read, len(data))
    listed = read.version.size
    if listed is not None and len(data) != listed:
        raise DamagedError(
            f"the file has {len(data):,} bytes, but {listed:,} when it was listed: it was changed "
            "since, or did not arrive whole"
        )
    return data


def require_size(read: Read, size: int | None) -> None:
    """Raise RefusedError if a file is larger than the limit."""
    if size is not None and size > read.limit:
        has = f"more than {read.limit:,}" if size == read.limit + 1 else f"{size:,}"
        raise RefusedError(
            f"{public_uri(read.address)} has {has} bytes, above image.max_bytes = {read.limit:,}"
        )


def require_version(read: Read, etag: str | None) -> None:
    """Raise RefusedError if a file is not the listed one."""
    if read.version.etag is not None and etag != read.version.etag:
        raise changed(read)


def changed(read: Read) -> RefusedError:
    """Return the error for a file that is another one than listed."""
    return RefusedError(
        f"{public_uri(read.address)} was changed after it was listed: label it into a new output"
    )


def etag_in(info: Any) -> str | None:
    """Return the etag in a filesystem's description of a file; None if there is none."""
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    return str(etag).strip('"') if etag else None
