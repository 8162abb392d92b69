"""Where things are: URIs, the ids made of them, and the filesystems behind them.

A location is a local path or any ``scheme://`` that fsspec knows. A local URI is written as the
plain absolute path, which every tool opens as it is. Two spellings of a location matter: the
*address*, with which bytes are fetched and which may carry a signature, and the *public URI*, which
is hashed and written and never holds a credential.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec

from salip_ray.errors import InputError, MissingDependencyError
from salip_ray.sources.formats.names import split_member

_ID_DIGITS = 32  # of the SHA-256 in hex: 128 bits
_SIGNED_PREFIXES = ("x-amz-", "x-goog-")
#: Query parameters of AWS (v2), Google (v2), Azure SAS and CloudFront signatures, in lower case.
_SIGNED_NAMES = frozenset(
    {"awsaccesskeyid", "googleaccessid", "signature", "expires", "policy", "key-pair-id"}
    | {"sig", "se", "sp", "sv", "sr", "st", "spr", "sip", "si", "ss", "srt", "saoid", "suoid"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv", "scid", "sdd"}
)
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_PACKAGES = {"gcs": "gcsfs", "azure": "adlfs"}


def is_remote(location: str) -> bool:
    """Whether a location has a scheme other than ``file://``."""
    return "://" in location and not location.startswith("file://")


def normalise(location: str | os.PathLike[str]) -> str:
    """One spelling for one place: an absolute local path, or a URI with a lower-case scheme."""
    text = os.fspath(location)
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
    """The normalised URI without what gives access: signature parameters and passwords.

    Other query parameters stay, for they may say which object is meant.
    """
    uri = normalise(address)
    member, archive = split_member(uri)
    if archive:
        return f"{member}::{public_uri(archive)}"
    scheme = uri.partition("://")[0] if is_remote(uri) else ""
    if not scheme:
        return uri
    if "@" in uri:
        uri = _without_password(uri, scheme)
    if scheme not in {"http", "https"} or "?" not in uri:
        return uri
    parts = urlsplit(uri)
    kept = [item for item in parts.query.split("&") if item and not _signs(item)]
    return urlunsplit(parts._replace(query="&".join(kept)))


def _without_password(uri: str, scheme: str) -> str:
    head, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not at:
        return uri
    if scheme in {"http", "https"}:
        return f"{head}://{host}{slash}{path}"
    # Elsewhere the name before the @ is part of the place (sftp's user, abfs's container).
    return f"{head}://{user.partition(':')[0]}@{host}{slash}{path}"


def _signs(item: str) -> bool:
    name = item.partition("=")[0].lower()
    return name.startswith(_SIGNED_PREFIXES) or name in _SIGNED_NAMES


def image_id(uri: str, index: int | None = None) -> str:
    """The first 32 hex digits of the SHA-256 of a public URI.

    A slice, frame or page of a file has its own: that of ``URI#INDEX``.
    """
    name = uri if index is None else f"{uri}#{index}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:_ID_DIGITS]


def join(base: str, *parts: str) -> str:
    """A place below another, both local or both remote."""
    return posixpath.join(base.rstrip("/") if base != "/" else base, *parts)


def found_at(name: str, location: str, path: str) -> str:
    """The address of what a store found, spelled as the location was.

    A client's names leave something out: that of s3:// the scheme, that of sftp:// the host as
    well, that of abfs:// the account.

    Args:
        name: of something found below a location.
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
    """Whether a location holds a wildcard."""
    location = split_member(location)[0]
    return any(sign in location for sign in _wildcards(location))


def root_of(location: str) -> str:
    """What is named of all that a location finds: itself; of a glob what comes before a wildcard.

    In an archive it is a place inside of it.
    """
    location = split_member(location)[0]
    places = [location.index(sign) for sign in _wildcards(location) if sign in location]
    return location[: min(places, default=None)].rstrip("/")


def _wildcards(location: str) -> str:
    return "*[" if location.startswith(("http://", "https://")) else "*?["


def filesystem(location: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Open the fsspec filesystem of a location.

    Returns:
        The filesystem, and the location as the filesystem spells it (``bucket/key`` for S3).

    Raises:
        InputError: the scheme is unknown, or the options do not suit it.
        MissingDependencyError: the scheme needs a package that is not installed.
    """
    uri = normalise(location)
    options = dict(storage_options or {})
    _, archive = split_member(uri)
    if archive:  # the options are those of the store that holds the archive
        options = {archive.partition("://")[0]: options} if is_remote(archive) else {}
    if not is_remote(uri):
        options = {}  # a local disk has none, whatever the other end of the job needs
    scheme = uri.partition("://")[0] if is_remote(uri) else "file"
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options)
    except ImportError:
        extra = _EXTRAS.get(scheme)
        package = _PACKAGES[extra] if extra else f"for {scheme}:// of fsspec"
        raise MissingDependencyError(package, f"{scheme}:// locations", extra) from None
    except (ValueError, TypeError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise InputError(f"{public_uri(uri)} cannot be opened: {error}") from None
    return fs, path
