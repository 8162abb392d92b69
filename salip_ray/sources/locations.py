"""Where things are: URIs, the ids made of them, and the filesystems behind them.

A location is a local path or any ``scheme://`` that fsspec knows. A local URI is written as the
plain absolute path, which every tool can open. Two spellings of a location matter: bytes are
fetched from the *address*, which may carry a signature; the *public URI* is hashed and written, and
never holds a credential.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from salip_ray.errors import InputError, MissingDependencyError
from salip_ray.sources.archives import open_archive
from salip_ray.sources.credentials import without_credentials
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.local_files import open_regular

_ID_DIGITS = 32  # of the SHA-256 in hex: 128 bits
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_PACKAGES = {"gcs": "gcsfs", "azure": "adlfs"}
_CACHES = re.compile(r"(?:(?:simple|file|block)cache::)+(?=.*://)")
_BROKEN_ARCHIVE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, UnicodeError),
)


def is_remote(location: str) -> bool:
    """Return True if a location has a scheme other than ``file://``."""
    return "://" in location and not location.startswith("file://")


def normalise(location: str | os.PathLike[str]) -> str:
    """Return the one spelling of a location: an absolute path, or a lower-case scheme's URI."""
    text = os.fspath(location)
    if caches := _CACHES.match(text):
        return caches[0] + normalise(text[caches.end() :])
    member, archive = split_member(text)
    if archive:
        return f"{normalise(member)}::{normalise(archive)}"
    if not is_remote(text):
        local = text.removeprefix("file://")
        return os.path.abspath(os.path.expanduser(local))  # noqa: PTH100, PTH111 (str in and out)
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    return f"{'s3' if scheme in {'s3a', 's3n'} else scheme}://{rest}"


def public_uri(address: str) -> str:
    """Return the normalised URI without what gives access (:mod:`.credentials`)."""
    uri = normalise(address)
    if caches := _CACHES.match(uri):
        return caches[0] + public_uri(uri[caches.end() :])
    member, archive = split_member(uri)
    if archive:
        return f"{member}::{public_uri(archive)}"
    return without_credentials(uri) if is_remote(uri) else uri


def image_id(uri: str, index: int | None = None) -> str:
    """Return the first 32 hex digits of the SHA-256 of a public URI.

    A slice, frame or page of a file has its own: that of ``URI#INDEX``.
    """
    name = uri if index is None else f"{uri}#{index}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:_ID_DIGITS]


def join(base: str, *parts: str) -> str:
    """Join a location and names below it, all local or all remote."""
    return posixpath.join(base.rstrip("/") if base != "/" else base, *parts)


def address_of(name: str, location: str, path: str) -> str:
    """Return the address of a file that a store listed, spelled as the location was.

    A client's names leave something out: that of s3:// the scheme, that of sftp:// the host as
    well, that of abfs:// the account.

    Args:
        name: of a file below a location, as the client gives it.
        location: as :func:`normalise` spells it.
        path: the same location as the client spells it, from :func:`filesystem`.
    """
    location, path = location.rstrip("/"), path.rstrip("/")
    shared = len(os.path.commonprefix((location[::-1], path[::-1])))  # noqa: RUF071 (of letters)
    before, dropped = path[: len(path) - shared], location[: len(location) - shared]
    if "://" in name:
        return name
    if not name.startswith(before):
        return f"{location.partition('://')[0]}://{name}"
    return dropped + name[len(before) :]


def is_glob(location: str) -> bool:
    """Return True if a location holds a wildcard. It may still be the name of a file."""
    location = split_member(location)[0]
    return any(sign in location for sign in _wildcards(location))


def root_of(location: str) -> str:
    """Return the location itself, or of a pattern the part before its first wildcard.

    Of an archive's members it is a location inside the archive.
    """
    location = split_member(location)[0]
    starts = [location.index(sign) for sign in _wildcards(location) if sign in location]
    return location[: min(starts, default=None)].rstrip("/")


def _wildcards(location: str) -> str:
    return "*[" if location.startswith(("http://", "https://")) else "*?["


def filesystem(location: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Open the fsspec filesystem of a location.

    Args:
        location: of a file, a folder or an archive's member.
        storage_options: of the store; for a member those of the store that holds the archive.

    Returns:
        The filesystem, and the location as the filesystem spells it (``bucket/key`` for S3).

    Raises:
        InputError: the scheme is unknown, the options do not suit it, or an archive is damaged.
        MissingDependencyError: the scheme needs a package that is not installed.
    """
    uri = normalise(location)
    if not is_remote(uri):  # a local disk has no options
        return fsspec.filesystem("file"), uri
    member, archive = split_member(uri)
    scheme = uri.partition("://")[0]
    if archive and scheme in {"zip", "tar"}:
        fs = _inside(archive, scheme, storage_options)
        return fs, path_in(fs, uri)
    options = dict(storage_options or {})
    if archive:
        options = {archive.partition("://")[0]: options} if is_remote(archive) else {}
    # fsspec takes "::" in a key for a chain: the key is no part of what the store is.
    store = uri if archive or _CACHES.match(uri) else member.partition("::")[0]
    try:
        fs, path = fsspec.core.url_to_fs(store, **options)
    except ImportError:
        extra = _EXTRAS.get(scheme)
        package = _PACKAGES[extra] if extra else f"for {scheme}:// of fsspec"
        raise MissingDependencyError(package, f"{scheme}:// locations", extra) from None
    except (ValueError, TypeError) as error:
        problem = str(error).replace(uri, public_uri(uri))
        raise InputError(f"{public_uri(uri)} cannot be opened: {problem}") from None
    return fs, path if store == uri else path_in(fs, uri)


def path_in(fs: Any, address: str) -> str:
    """Return an address as its filesystem spells it; it is the only use of fsspec's private name.

    fsspec's public ``url_to_fs`` gives one path and builds a filesystem for it; many addresses of
    one filesystem are fetched together.
    """
    uri = normalise(address)
    if isinstance(fs, LocalFileSystem):
        return uri
    if caches := _CACHES.match(uri):
        uri = uri[caches.end() :]
    return str(fs._strip_protocol(split_member(uri)[0]))


def version_of(info: Mapping[str, Any]) -> str | None:
    """Return what a store says about an archive's version, or None."""
    tag = info.get("ETag") or info.get("etag") or info.get("mtime")
    return None if tag is None else str(tag)


def _inside(archive: str, scheme: str, storage_options: Mapping[str, Any] | None) -> Any:
    """Return the filesystem of an archive's members."""
    store, path = filesystem(archive, storage_options)
    local = isinstance(store, LocalFileSystem)
    nested = getattr(store, "version", None)  # a member is as old as its archive
    version = version_of(store.info(path)) or nested
    key = f"{archive} {sorted((storage_options or {}).items(), key=str)!r}"
    try:
        return open_archive(
            key, scheme, version, lambda: open_regular(path) if local else store.open(path, "rb")
        )
    except _BROKEN_ARCHIVE:
        raise InputError(
            f"{public_uri(archive)} cannot be opened: it is not a {scheme} archive, or damaged; "
            "test it or make it again"
        ) from None
