"""Finding the images of an input: a folder, a prefix, a glob, one file, or a manifest.

A listing of a million images has to fit a driver, so entries are streamed from the store into
Arrow columns, not held as Python objects (clients of other stores than S3 and the local disk hold
it all at once). Manifests are CSV or Parquet files with a column ``uri``; relative URIs are taken
from the manifest's own folder. What a manifest names is taken as it is; elsewhere hidden files,
names without an image's suffix and links to folders, which may lead in a circle, are left out, and
counted. A file without any suffix is an image where it has DICOM's mark in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from salip_ray.errors import InputError, SalipError
from salip_ray.sources.decode import IMAGE_SUFFIXES, suffix
from salip_ray.sources.formats.names import ARCHIVES, is_bare, split_member
from salip_ray.sources.headers import MARKED_BYTES, holds_dicom
from salip_ray.sources.locations import is_glob, is_remote, normalise, public_uri, root_of
from salip_ray.sources.manifests import MANIFEST_SUFFIXES, read_addresses
from salip_ray.sources.scan import Entry, Skipped, find_local, find_remote
from salip_ray.sources.stores import said

LISTING_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),  # public: hashed and written
        pa.field("size", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("address", pa.string()),  # how to fetch it, where that is not the URI itself
    ]
)
_CHUNK = 32_768
_LOOKED_INTO = 4096  # files without a suffix at a time
_READERS = 32


@dataclass(frozen=True)
class Listing:
    """The images of an input, in no particular order, as :data:`LISTING_SCHEMA`."""

    table: pa.Table
    skipped: Skipped = field(default_factory=Skipped)


def list_images(
    location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> Listing:
    """List the images of an input.

    Args:
        location: folder, prefix, glob (``*``, ``?``, ``[...]``, ``**``), image or manifest; local
            or of any fsspec scheme.
        storage_options: fsspec's options for a remote input.

    Raises:
        InputError: nothing is there, nothing of it is an image, or the manifest is malformed.
    """
    where, skipped = _spelled(location), Skipped()
    try:
        table = _to_arrow(_entries(where, storage_options, skipped))
    except SalipError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
        problem = said(error, where)
        raise InputError(f"input {public_uri(where)} cannot be listed: {problem}") from None
    if table.num_rows == 0:
        raise _nothing_in(where, skipped)
    return Listing(table, skipped)


def first_image(
    location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> str:
    """The address of an image of an input, listing no more of it than that takes.

    Files that are known to be empty are passed over. What the store's client raises stays what it
    is.

    Args:
        location: as for :func:`list_images`.
        storage_options: as there.

    Raises:
        InputError: nothing is there, nothing of it is an image, or the manifest is malformed.
    """
    where, skipped = _spelled(location), Skipped()
    for address, size, _ in _entries(where, storage_options, skipped):
        if size != 0:
            return address
    raise _nothing_in(where, skipped)


def _spelled(location: str | os.PathLike[str]) -> str:
    """The location; of an archive, that of all its members."""
    where = normalise(location)
    archive = ARCHIVES.get(suffix(where))
    if archive and not split_member(where)[1] and not is_glob(where):
        where = f"{archive}://::{where}"
    return where


def _entries(
    where: str, storage_options: Mapping[str, Any] | None, skipped: Skipped
) -> Iterator[Entry]:
    if suffix(where) in MANIFEST_SUFFIXES and not is_glob(where):
        return ((address, None, None) for address in read_addresses(where, storage_options))
    if is_remote(where):
        found = find_remote(where, storage_options)
        return _images(found, root_of(where), skipped, storage_options)
    return _images(find_local(where, skipped), root_of(where), skipped)


def _nothing_in(where: str, skipped: Skipped) -> InputError:
    left_out = str(skipped)
    known = ", ".join(sorted(IMAGE_SUFFIXES))
    return InputError(
        f"no image found in {public_uri(where)}"
        + (f" (left out: {left_out}; images end in {known})" if left_out else "")
    )


def _to_arrow(entries: Iterator[Entry]) -> pa.Table:
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
    entries: Iterator[Entry],
    root: str,
    skipped: Skipped,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Entry]:
    """Leave out, and count, what is not an image: seen from the root, for that one was named."""
    bare: list[Entry] = []
    for entry in entries:
        address = entry[0]
        below = split_member(address)[0].removeprefix(root)
        try:
            address.encode("utf-8")
        except UnicodeEncodeError:
            skipped.unnamed += 1
            continue
        if "/." in below or "/__MACOSX/" in below:
            skipped.hidden += 1
        elif suffix(address) in IMAGE_SUFFIXES:
            yield entry
        elif is_bare(address):
            bare.append(entry)
            if len(bare) == _LOOKED_INTO:
                yield from _with_mark(bare, skipped, storage_options)
                bare = []
        else:
            skipped.other += 1
    yield from _with_mark(bare, skipped, storage_options)


def _with_mark(
    entries: Sequence[Entry], skipped: Skipped, storage_options: Mapping[str, Any] | None
) -> Iterator[Entry]:
    """Those that are DICOM, as a few bytes of each tell, where there are as many."""

    def is_marked(entry: Entry) -> bool:
        short = entry[1] is not None and entry[1] < MARKED_BYTES
        return not short and holds_dicom(entry[0], storage_options)

    # Members of an archive share one open file, which has one place to read from.
    many = bool(entries) and not split_member(entries[0][0])[1]
    with ThreadPoolExecutor(_READERS if many else 1) as readers:
        for entry, is_dicom in zip(entries, readers.map(is_marked, entries), strict=True):
            if is_dicom:
                yield entry
            else:
                skipped.other += 1
