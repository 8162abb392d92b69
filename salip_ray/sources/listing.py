"""Find the images of an input: a folder, a prefix, a pattern, one file, an archive or a manifest.

A listing of a million images has to fit a driver, so entries are streamed from the store into
Arrow columns, not held as Python objects (clients of other stores than S3 and the local disk hold
it all at once). Manifests are CSV or Parquet files with a column ``uri``; relative URIs are taken
from the manifest's own folder. What a manifest names is always taken. Elsewhere hidden files,
names without an image's suffix and links to folders, which may lead in a circle, are left out and
counted. A file without any suffix is an image if it has DICOM's mark in it. A location that exists
is never read as a pattern.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.config import PrivacyConfig
from salip_ray.errors import InputError, SalipError
from salip_ray.sources.decode import IMAGE_SUFFIXES
from salip_ray.sources.formats.names import (
    CLOSED_ARCHIVES,
    archive_scheme,
    file_name,
    is_bare,
    split_member,
    suffix,
)
from salip_ray.sources.headers import MARKED_BYTES, holds_dicom
from salip_ray.sources.locations import is_remote, normalise, public_uri, root_of
from salip_ray.sources.manifests import MANIFEST_SUFFIXES, read_addresses
from salip_ray.sources.patterns import FileFilter
from salip_ray.sources.privacy import unnamed_errors
from salip_ray.sources.scan import ListedFile, Skipped, find_local, find_remote, is_pattern
from salip_ray.sources.stores import describe_error

LISTING_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),  # public: hashed and written
        pa.field("size", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("address", pa.string()),  # to fetch it from, if that is not the URI itself
    ]
)
_ALL = FileFilter()
_CHUNK = 32_768
_LOOKED_INTO = 4096  # files without a suffix at a time
_READERS = 32


@dataclass(frozen=True)
class Listing:
    """The images of an input, in no particular order, as :data:`LISTING_SCHEMA`.

    Attributes:
        table: a row for each file.
        skipped: how many names were left out, by reason.
        root: the public URI of the folder that was listed, to show names relative to it.
    """

    table: pa.Table
    skipped: Skipped = field(default_factory=Skipped)
    root: str = ""


def list_images(
    location: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    selection: FileFilter = _ALL,
    privacy: PrivacyConfig | None = None,
) -> Listing:
    """List the images of an input.

    Args:
        location: folder, prefix, pattern (``*``, ``?``, ``[...]``, ``**``), image, archive or
            manifest; local or of any fsspec scheme.
        storage_options: fsspec's options for a remote input.
        selection: which of its files are taken.
        privacy: whether an error may name a file; by default not one that may be DICOM.

    Raises:
        InputError: nothing is there, nothing of it is an image, or the manifest is malformed.
    """
    where, skipped = _spelled(location), Skipped()
    try:
        entries, root = _entries(where, storage_options, skipped, privacy)
        table = _to_arrow(_selected(entries, root, selection, skipped))
    except SalipError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
        problem = describe_error(error, where)
        raise InputError(f"input {public_uri(where)} cannot be listed: {problem}") from None
    if table.num_rows == 0:
        raise _nothing_in(where, skipped)
    if selection.limit is not None:
        table = _first(table, selection.limit, skipped)
    return Listing(table, skipped, root)


def first_image(
    location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> str:
    """Return the address of one image of an input, and list only as much as that needs.

    Files that are known to be empty are passed over. Errors of the store's client are not wrapped.

    Args:
        location: as for :func:`list_images`.
        storage_options: as there.

    Raises:
        InputError: nothing is there, nothing of it is an image, or the manifest is malformed.
    """
    where, skipped = _spelled(location), Skipped()
    for address, size, _ in _entries(where, storage_options, skipped)[0]:
        if size != 0:
            return address
    raise _nothing_in(where, skipped)


def _spelled(location: str | os.PathLike[str]) -> str:
    """Return the location; of an archive, that of all its members."""
    where = normalise(location)
    archive = None if split_member(where)[1] else archive_scheme(where)
    if archive and not is_pattern(where):
        where = f"{archive}://::{where}"
    return where


def _entries(
    where: str,
    storage_options: Mapping[str, Any] | None,
    skipped: Skipped,
    privacy: PrivacyConfig | None = None,
) -> tuple[Iterator[ListedFile], str]:
    """Return the images at a location, and the part of their addresses that all have in common."""
    if file_name(where).lower().endswith(CLOSED_ARCHIVES):
        raise InputError(
            f"archive {public_uri(where)} is of a kind that is not read: unpack it, or make it a "
            ".zip or .tar.gz"
        )
    pattern = is_pattern(where, storage_options)
    if suffix(where) in MANIFEST_SUFFIXES and not pattern:
        addresses = read_addresses(where, storage_options)
        return ((address, None, None) for address in addresses), where.rpartition("/")[0]
    root = root_of(where) if pattern else split_member(where)[0].rstrip("/")
    if is_remote(where):
        entries = find_remote(where, storage_options, pattern=pattern)
    else:
        entries = find_local(where, skipped)
    judge = _BareNames(skipped, storage_options, privacy or PrivacyConfig())
    return _images(entries, root, skipped, judge), root


def relative(address: str, root: str) -> str:
    """Return the path of a file below the root of a listing; its name if it is the root."""
    path = split_member(address)[0]
    if path.startswith(root) and path != root:
        return path[len(root) :].lstrip("/")
    return path.rpartition("/")[2]


def _selected(
    entries: Iterator[ListedFile], root: str, selection: FileFilter, skipped: Skipped
) -> Iterator[ListedFile]:
    for entry in entries:
        if selection.takes(relative(entry[0], root)):
            yield entry
        else:
            skipped.excluded += 1


def _first(table: pa.Table, limit: int, skipped: Skipped) -> pa.Table:
    skipped.excluded += max(0, table.num_rows - limit)
    return table.take(pc.sort_indices(table, sort_keys=[("uri", "ascending")])[:limit])


def _nothing_in(where: str, skipped: Skipped) -> InputError:
    left_out = str(skipped)
    known = ", ".join(sorted(IMAGE_SUFFIXES))
    return InputError(
        f"no image found in {public_uri(where)}"
        + (f" (left out: {left_out}; images end in {known})" if left_out else "")
    )


def _to_arrow(entries: Iterator[ListedFile]) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    chunk: list[tuple[str, int | None, str | None, str | None]] = []
    for address, size, etag in entries:
        uri = public_uri(address)
        chunk.append((uri, size, etag, None if uri == address else address))
        if len(chunk) == _CHUNK:
            batches.append(_batch(chunk))
            chunk = []
    batches.append(_batch(chunk))
    return pa.Table.from_batches(batches, LISTING_SCHEMA)


def _batch(chunk: list[tuple[str, int | None, str | None, str | None]]) -> pa.RecordBatch:
    columns = zip(*chunk, strict=True) if chunk else ((), (), (), ())
    arrays = [
        pa.array(column, type=kind.type)
        for column, kind in zip(columns, LISTING_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=LISTING_SCHEMA)


def _images(
    entries: Iterator[ListedFile], root: str, skipped: Skipped, bare_names: _BareNames
) -> Iterator[ListedFile]:
    """Leave out, and count, what is not an image.

    Only names below the root are judged: the root itself was named by the user.
    """
    for entry in entries:
        address = entry[0]
        folders = split_member(address)[0].removeprefix(root).split("/")[1:]
        try:
            address.encode("utf-8")
        except UnicodeEncodeError:
            skipped.unnamed += 1
            continue
        if any(map(_is_hidden, folders)):
            skipped.hidden += 1
        elif suffix(address) in IMAGE_SUFFIXES:
            yield entry
        elif is_bare(address):
            yield from bare_names.add(entry)
        elif archive_scheme(address) or file_name(address).lower().endswith(CLOSED_ARCHIVES):
            skipped.archives += 1
        else:
            skipped.other += 1
    yield from bare_names.flush()


def _is_hidden(name: str) -> bool:
    return name == "__MACOSX" or (name.startswith(".") and name not in {".", ".."})


class _BareNames:
    """Files without a suffix, which are looked into, many at a time."""

    def __init__(
        self,
        skipped: Skipped,
        storage_options: Mapping[str, Any] | None,
        privacy: PrivacyConfig,
    ) -> None:
        self._skipped, self._options, self._privacy = skipped, storage_options, privacy
        self._waiting: list[ListedFile] = []

    def add(self, entry: ListedFile) -> Iterator[ListedFile]:
        """Take a file; yield those that are DICOM once enough have come together."""
        self._waiting.append(entry)
        if len(self._waiting) >= _LOOKED_INTO:
            yield from self.flush()

    def flush(self) -> Iterator[ListedFile]:
        """Yield those that are DICOM by their first bytes, and count the others."""
        entries, self._waiting = self._waiting, []
        with ThreadPoolExecutor(_READERS) as readers:
            for entry, is_dicom in zip(entries, readers.map(self._is_dicom, entries), strict=True):
                if is_dicom:
                    yield entry
                else:
                    self._skipped.other += 1

    def _is_dicom(self, entry: ListedFile) -> bool:
        address, size, _ = entry
        if size is not None and size < MARKED_BYTES:
            return False
        with unnamed_errors(address, self._privacy):
            return holds_dicom(address, self._options)
