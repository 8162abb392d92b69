"""From a listing of files to one of pictures: volumes become slices before shards are cut.

The heads of files that may hold several pictures are read, in threads where they are few and in Ray
tasks where they are many. A file of several pictures becomes a row for each; DICOM files of one
slice each get their place in the volume of their series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayTaskError

from salip_ray.cluster.session import ray_session
from salip_ray.config import Config, ImageConfig
from salip_ray.errors import SalipError
from salip_ray.output.manifest import VOLUME_COLUMNS, with_volume_columns
from salip_ray.sources.decode import IMAGE_SUFFIXES, STACK_SUFFIXES
from salip_ray.sources.headers import Header, read_header
from salip_ray.sources.listing import LISTING_SCHEMA, Listing
from salip_ray.sources.locations import image_id
from salip_ray.sources.series import group_series

_FEW = 512  # files whose heads are read without Ray
_TOGETHER = 256  # files of a task
_THREADS = 16


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
        if header.count is not None:
            places[uri] = [(index, image_id(uri), index) for index in range(header.count)]
    return Listing(_spread(table, where, uris, places), listing.skipped), notes


def _may_be_stack(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """All but names of formats of one picture: DICOM files often have no suffix."""
    single = "|".join(name.removeprefix(".") for name in IMAGE_SUFFIXES - STACK_SUFFIXES)
    return pc.invert(
        pc.match_substring_regex(uris, rf"\.({single})(\?.*|::.*)?$", ignore_case=True)
    )


def _headers(addresses: Sequence[str], config: Config) -> list[Header]:
    options = config.storage.input
    if len(addresses) <= _FEW:
        return _read_all(addresses, config.image, options)
    cpus = config.pools.fetch_cpus
    with ray_session(lambda _: 1 + cpus):
        read = ray.remote(_read_all).options(num_cpus=cpus)
        tasks = [
            read.remote(addresses[start : start + _TOGETHER], config.image, options)
            for start in range(0, len(addresses), _TOGETHER)
        ]
        try:
            return [header for part in ray.get(tasks) for header in part]
        except RayTaskError as error:
            if isinstance(error.cause, SalipError):
                raise error.cause from None
            raise


def _read_all(
    addresses: Sequence[str], image: ImageConfig, options: Mapping[str, Any]
) -> list[Header]:
    with ThreadPoolExecutor(min(_THREADS, len(addresses))) as pool:
        return list(pool.map(lambda address: read_header(address, image, options), addresses))


Places = dict[str, list[tuple[int | None, str | None, int | None]]]


def _in_series(headers: Mapping[str, Header], *, keep_uids: bool) -> tuple[Places, list[str]]:
    """Index, volume and slice of DICOM files that are slices, and what is odd about the series."""
    volumes = group_series({uri: h.geometry for uri, h in headers.items() if h.geometry})
    places: Places = {}
    odd: list[str] = []
    orientations = Counter(volume.series for volume in volumes)
    for volume in volumes:
        name = volume.series if keep_uids else image_id(volume.series)
        if orientations[volume.series] > 1:
            name = f"{name}-{image_id(volume.files[0])[:8]}"
        for place, uri in enumerate(volume.files):
            places[uri] = [(None, name, place)]
        if said := str(volume):
            odd.append(f"volume {name[:12]} of {len(volume.files)} slices has {said}")
    if len(odd) > 5:
        odd[5:] = [f"{len(odd) - 5} more volumes have gaps or duplicate positions"]
    return places, odd


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
