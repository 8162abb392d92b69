"""From a listing of files to one of pictures: volumes become slices before shards are cut.

The heads of files that may hold several pictures are read, in threads where they are few and in Ray
tasks where they are many. A file of several pictures becomes a row for each; DICOM files of one
slice each get their place in the volume of their series.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayTaskError

from salip_ray.cluster.session import ray_session
from salip_ray.config import Config
from salip_ray.errors import SalipError
from salip_ray.output.manifest import VOLUME_COLUMNS, with_volume_columns
from salip_ray.sources.decode import IMAGE_SUFFIXES, STACK_SUFFIXES
from salip_ray.sources.headers import Header, read_header
from salip_ray.sources.listing import LISTING_SCHEMA, Listing
from salip_ray.sources.locations import image_id
from salip_ray.sources.privacy import unnamed_errors
from salip_ray.sources.series import Volume, group_series

_FEW = 512  # files whose heads are read without Ray
_TOGETHER = 256  # files of a task
_THREADS = 16
_MOST_NOTES = 5


def expand(listing: Listing, config: Config) -> tuple[Listing, list[str]]:
    """A listing with a row for each picture, and what is worth saying about it.

    Raises:
        ResourceError: Ray cannot be started for the many files there are.
        InputError: a store fails to give out the head of a file.
    """
    table = with_volume_columns(listing.table.select(LISTING_SCHEMA.names)).combine_chunks()
    where = np.flatnonzero(_may_be_stack(table["uri"]).to_numpy(zero_copy_only=False))
    if where.size == 0:
        return listing, []
    uris = table["uri"].take(pa.array(where)).to_pylist()
    addresses = table["address"].take(pa.array(where)).to_pylist()
    found = _headers([a or u for a, u in zip(addresses, uris, strict=True)], config)
    headers = dict(zip(uris, found, strict=True))
    places, notes = _in_series(headers, keep_uids=config.privacy.keep_uids)
    for uri, header in headers.items():
        if header.count is not None and uri not in places:
            places[uri] = [(index, image_id(uri), index) for index in range(header.count)]
    return replace(listing, table=_spread(table, where, uris, places)), notes


def _may_be_stack(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """All but names of formats of one picture: DICOM files often have no suffix."""
    single = "|".join(name.removeprefix(".") for name in IMAGE_SUFFIXES - STACK_SUFFIXES)
    return pc.invert(
        pc.match_substring_regex(uris, rf"\.({single})(\?.*|::.*)?$", ignore_case=True)
    )


def _headers(addresses: Sequence[str], config: Config) -> list[Header]:
    if len(addresses) <= _FEW:
        return _read_all(addresses, config)
    cpus = config.pools.fetch_cpus
    with ray_session(lambda _: 1 + cpus):
        read = ray.remote(_read_all).options(num_cpus=cpus)
        tasks = [
            read.remote(addresses[start : start + _TOGETHER], config)
            for start in range(0, len(addresses), _TOGETHER)
        ]
        try:
            return [header for part in ray.get(tasks) for header in part]
        except RayTaskError as error:
            if isinstance(error.cause, SalipError):
                raise error.cause from None
            raise


def _read_all(addresses: Sequence[str], config: Config) -> list[Header]:
    def read(address: str) -> Header:
        with unnamed_errors(address, config.privacy):
            return read_header(address, config.image, config.storage.input)

    with ThreadPoolExecutor(min(_THREADS, len(addresses))) as pool:
        return list(pool.map(read, addresses))


Places = dict[str, list[tuple[int | None, str | None, int | None]]]


def _in_series(headers: Mapping[str, Header], *, keep_uids: bool) -> tuple[Places, list[str]]:
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
    places: Places = {}
    notes: list[str] = []
    for series, uris in members.items():
        if len(uris) < 2:
            continue
        name = series if keep_uids else image_id(series)
        places |= _in_one_series(name, uris, headers, volumes[series])
        notes += _notes(name, volumes[series])
    if len(notes) > _MOST_NOTES:
        more = len(notes) - _MOST_NOTES
        notes[_MOST_NOTES:] = [f"{more} more notes about series are not shown"]
    return places, notes


def _in_one_series(
    name: str, uris: Sequence[str], headers: Mapping[str, Header], volumes: Sequence[Volume]
) -> Places:
    """Return the places of the files of one series that has several."""
    places: Places = {}
    stacks = [volume for volume in volumes if len(volume.files) > 1]
    frames = {uri: count for uri in uris if (count := headers[uri].count) is not None}
    only_one = len(stacks) + len(frames) == 1
    for volume in stacks:
        own = name if only_one else f"{name}-{image_id(volume.files[0])[:8]}"
        for index, uri in enumerate(volume.files):
            places[uri] = [(None, own, index)]
    for uri in uris:
        own = name if only_one and uri in frames else f"{name}-{image_id(uri)[:8]}"
        if uri in frames:
            places[uri] = [(index, own, index) for index in range(frames[uri])]
        elif uri not in places:
            places[uri] = [(None, own, 0)]
    return places


def _notes(name: str, volumes: Sequence[Volume]) -> list[str]:
    """Return what is remarkable about a series: how it was split and why, gaps, duplicates."""
    notes: list[str] = []
    short = name[:12]
    reasons = sorted({reason for volume in volumes for reason in volume.split_by})
    stacks = [volume for volume in volumes if len(volume.files) > 1]
    alone = len(volumes) - len(stacks)
    if len(volumes) > 1:
        parts = [_count(len(stacks), "volume")] if stacks else []
        parts += [_count(alone, "single slice")] if alone else []
        notes.append(f"series {short} is split into {' and '.join(parts)}: {', '.join(reasons)}")
    for volume in volumes:
        if remarks := str(volume):
            slices = _count(len(volume.files), "slice")
            notes.append(f"a volume of {slices} of series {short} has {remarks}")
    return notes


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _spread(
    table: pa.Table, where: np.ndarray[Any, Any], uris: Sequence[str], places: Places
) -> pa.Table:
    """Repeat the rows of files of several pictures, and fill in the places."""
    counts = np.ones(table.num_rows, np.int64)
    columns: dict[str, list[Any]] = {name: [] for name in VOLUME_COLUMNS.names}
    at: list[int] = []
    ends: list[tuple[int, str]] = [
        (int(row), uri) for row, uri in zip(where, uris, strict=True) if uri in places
    ]
    for row, uri in ends:
        counts[row] = len(places[uri])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for row, uri in ends:
        at.extend(range(int(starts[row]), int(starts[row] + counts[row])))
        for name, values in zip(columns, zip(*places[uri], strict=True), strict=True):
            columns[name].extend(values)
    again = pa.array(np.repeat(np.arange(len(counts)), counts))
    wide = table.select(LISTING_SCHEMA.names).take(again)
    lookup = np.full(wide.num_rows, -1, np.int64)
    lookup[at] = np.arange(len(at))
    indices = pa.array(lookup, mask=lookup < 0)
    for field in VOLUME_COLUMNS:
        wide = wide.append_column(field, pa.array(columns[field.name], field.type).take(indices))
    return wide
