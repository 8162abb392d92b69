"""Expand a listing of files to a listing of pictures, before it is cut into shards.

A file with several pictures (volume, multi-frame DICOM, multi-page TIFF) becomes one row per
picture. DICOM files with one slice each get their position in the volume of their series.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.config import Config
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.sources.decode import IMAGE_SUFFIXES, STACK_SUFFIXES
from salip_ray.sources.headers import Header, read_header
from salip_ray.sources.listing import LISTING_SCHEMA, Listing
from salip_ray.sources.locations import image_id
from salip_ray.sources.privacy import unnamed_errors
from salip_ray.sources.series import Volume, group_series
from salip_ray.wording import counted

#: Columns of a listing for the index of a picture in its file, its volume and its slice.
VOLUME_COLUMNS = pa.schema([MANIFEST_SCHEMA.field(name) for name in ("index", "volume", "slice")])

_THREADS = 16
_MAX_NOTES = 5

HeaderReader = Callable[[Sequence[str]], list[Header]]
#: The values of :data:`VOLUME_COLUMNS` for one row.
_Slice = tuple[int | None, str | None, int | None]


def expand(
    listing: Listing, config: Config, read_headers: HeaderReader | None = None
) -> tuple[Listing, list[str]]:
    """Return the listing with one row per picture, and notes on odd DICOM series for the user.

    Args:
        listing: the files of an input.
        config: its ``image`` and ``privacy`` sections and ``storage.input`` are used.
        read_headers: read the headers of the files at these addresses, in this order. By default
            threads of this process read them.

    Raises:
        InputError: a store fails while a header is read.
    """
    table = with_volume_columns(listing.table.select(LISTING_SCHEMA.names)).combine_chunks()
    rows = np.flatnonzero(_may_hold_slices(table["uri"]).to_numpy(zero_copy_only=False))
    if rows.size == 0:
        return listing, []
    chosen = table.take(pa.array(rows))
    uris = chosen["uri"].to_pylist()
    addresses = pc.coalesce(chosen["address"], chosen["uri"]).to_pylist()
    if read_headers is None:
        headers = read_all_headers(addresses, config)
    else:
        headers = read_headers(addresses)
    header_of = dict(zip(uris, headers, strict=True))
    slices, notes = _slices_of_series(header_of, keep_uids=config.privacy.keep_uids)
    for uri, header in header_of.items():
        if header.count is not None and uri not in slices:
            volume = image_id(uri)
            slices[uri] = [(index, volume, index) for index in range(header.count)]
    expanded = _repeat_rows(
        table, {int(row): slices[uri] for row, uri in zip(rows, uris, strict=True) if uri in slices}
    )
    return replace(listing, table=expanded), notes


def read_all_headers(addresses: Sequence[str], config: Config) -> list[Header]:
    """Read the headers of files in threads.

    Raises:
        InputError: a store fails while a header is read.
    """

    def read(address: str) -> Header:
        with unnamed_errors(address, config.privacy):
            return read_header(address, config.image, config.storage.input)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(read, addresses))


def with_volume_columns(table: pa.Table) -> pa.Table:
    """Append the missing columns of :data:`VOLUME_COLUMNS`, filled with nulls."""
    for field in VOLUME_COLUMNS:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _may_hold_slices(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return False only for suffixes of single pictures: DICOM files often have no suffix."""
    single = "|".join(name.removeprefix(".") for name in IMAGE_SUFFIXES - STACK_SUFFIXES)
    return pc.invert(
        pc.match_substring_regex(uris, rf"\.({single})(\?.*|::.*)?$", ignore_case=True)
    )


def _slices_of_series(
    headers: Mapping[str, Header], *, keep_uids: bool
) -> tuple[dict[str, list[_Slice]], list[str]]:
    """Return index, volume and slice of the files of DICOM series, and notes about the series.

    All volumes, multi-frame files and single images of one series have names that begin with the
    id of the series, so that a split by :func:`salip_ray.sources.series.series_of` keeps them
    together.
    """
    geometries = {uri: header.geometry for uri, header in headers.items() if header.geometry}
    volumes: dict[str, list[Volume]] = defaultdict(list)
    for volume in group_series(geometries):
        volumes[volume.series].append(volume)
    members: dict[str, list[str]] = defaultdict(list)
    for uri in sorted(headers):
        if series := headers[uri].series:
            members[series].append(uri)
    slices: dict[str, list[_Slice]] = {}
    notes: list[str] = []
    for series, uris in members.items():
        if len(uris) < 2:
            continue
        name = series if keep_uids else image_id(series)
        slices |= _slices_of_one_series(name, uris, headers, volumes[series])
        notes += _notes(name, volumes[series])
    if len(notes) > _MAX_NOTES:
        more = len(notes) - _MAX_NOTES
        notes[_MAX_NOTES:] = [f"{more} more notes about series are not shown"]
    return slices, notes


def _slices_of_one_series(
    name: str, uris: Sequence[str], headers: Mapping[str, Header], volumes: Sequence[Volume]
) -> dict[str, list[_Slice]]:
    """Return the slices of the files of one series that has several."""
    slices: dict[str, list[_Slice]] = {}
    stacks = [volume for volume in volumes if len(volume.files) > 1]
    frames = {uri: count for uri in uris if (count := headers[uri].count) is not None}
    only_one = len(stacks) + len(frames) == 1
    for volume in stacks:
        own = name if only_one else f"{name}-{image_id(volume.files[0])[:8]}"
        for index, uri in enumerate(volume.files):
            slices[uri] = [(None, own, index)]
    for uri in uris:
        own = name if only_one and uri in frames else f"{name}-{image_id(uri)[:8]}"
        if uri in frames:
            slices[uri] = [(index, own, index) for index in range(frames[uri])]
        elif uri not in slices:
            slices[uri] = [(None, own, 0)]
    return slices


def _notes(name: str, volumes: Sequence[Volume]) -> list[str]:
    """Return what is remarkable about a series: how it was split and why, gaps, duplicates."""
    notes: list[str] = []
    short = name[:12]
    reasons = sorted({reason for volume in volumes for reason in volume.split_by})
    stacks = [volume for volume in volumes if len(volume.files) > 1]
    alone = len(volumes) - len(stacks)
    if len(volumes) > 1:
        parts = [counted(len(stacks), "volume")] if stacks else []
        parts += [counted(alone, "single slice")] if alone else []
        notes.append(f"series {short} is split into {' and '.join(parts)}: {', '.join(reasons)}")
    for volume in volumes:
        if remarks := str(volume):
            slices = counted(len(volume.files), "slice")
            notes.append(f"a volume of {slices} of series {short} has {remarks}")
    return notes


def _repeat_rows(table: pa.Table, slices: Mapping[int, Sequence[_Slice]]) -> pa.Table:
    """Repeat each row once per slice, and fill in :data:`VOLUME_COLUMNS`.

    Args:
        table: a listing.
        slices: of some rows, in ascending order of their numbers; other rows stay unchanged.
    """
    counts = np.ones(table.num_rows, np.int64)
    for row, of_row in slices.items():
        counts[row] = len(of_row)
    starts: npt.NDArray[np.int64] = np.cumsum(counts) - counts
    filled = [int(starts[row]) + i for row, of_row in slices.items() for i in range(len(of_row))]
    values = [each for of_row in slices.values() for each in of_row]
    wide = table.select(LISTING_SCHEMA.names).take(
        pa.array(np.repeat(np.arange(table.num_rows), counts))
    )
    lookup = np.full(wide.num_rows, -1, np.int64)
    lookup[filled] = np.arange(len(filled))
    indices = pa.array(lookup, mask=lookup < 0)
    for column, field in enumerate(VOLUME_COLUMNS):
        cells = pa.array([each[column] for each in values], field.type)
        wide = wide.append_column(field, cells.take(indices))
    return wide
