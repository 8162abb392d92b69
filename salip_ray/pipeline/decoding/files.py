"""Fetch the files of manifest rows, a few small ones or one volume at a time, and open them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from salip_ray.config import Config
from salip_ray.errors import ImageError
from salip_ray.output.manifest import is_padding
from salip_ray.pipeline.workers.deaths import Attempts
from salip_ray.sources.decode import open_stack
from salip_ray.sources.fetch import ListedVersion, fetch_all
from salip_ray.sources.formats.stack import Stack
from salip_ray.sources.locations import image_id, is_remote

_FILES_AT_ONCE = 16  # fetched together; their bytes are all in memory


@dataclass(frozen=True)
class ListedRow:
    """A row as its deaths of workers are counted: its image, its volume and its file."""

    image_id: str
    volume: str | None
    file: str | None  # None if the file holds one image

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ListedRow:
        """Return what is counted of a row of the manifest."""
        several = row["index"] is not None and row["uri"]
        return cls(row["image_id"], row["volume"], image_id(row["uri"]) if several else None)

    @property
    def key(self) -> str:
        """The key of the file; empty for padding."""
        return self.file or self.image_id


def noting(attempts: Attempts, listed: Sequence[ListedRow]) -> AbstractContextManager[None]:
    """Note the files of some rows, for the time of a block that fetches or opens them."""
    keys = list(dict.fromkeys(row.key for row in listed if row.key))
    if len(keys) != 1:
        return attempts.at_one_of(keys)
    return attempts.at(keys[0], None if listed[0].file else listed[0].volume)


def files_at_once(batch: pa.Table, deaths: Mapping[str, int]) -> Iterator[pa.Table]:
    """Cut a batch so that each part is a few small files, or one volume.

    A file that a dead worker noted is a separate part, so that its deaths can be told apart.
    """
    uris, ids = batch["uri"].to_pylist(), batch["image_id"].to_pylist()
    indices = batch["index"].to_pylist()
    alone = [index is not None or key in deaths for index, key in zip(indices, ids, strict=True)]
    start = 0
    while start < len(uris):
        end = start + 1
        if indices[start] is not None:
            while end < len(uris) and uris[end] == uris[start]:
                end += 1
        elif not alone[start]:
            while end < min(len(uris), start + _FILES_AT_ONCE) and not alone[end]:
                end += 1
        yield batch.slice(start, end - start)
        start = end


def fetch_bytes(
    rows: pa.Table, lost: Sequence[Exception | None], config: Config
) -> list[bytes | Exception]:
    """Return the bytes of each file, or the error of its fetch.

    The slices of a volume share the bytes of its file, fetched for the first of them.

    Args:
        rows: of a few files, or of one volume.
        lost: why a row is given up, or None. A file whose rows are all given up is not fetched.
        config: of the job.
    """
    one_file = rows["index"][0].is_valid
    if all(lost):
        return [error for error in lost if error is not None]
    listed = rows.slice(0, 1 if one_file else None)
    listed = listed.select(["image_id", "uri", "size", "etag", "address"]).to_pylist()
    results: list[bytes | Exception] = [ImageError("no image")] * len(listed)
    wanted = [
        i
        for i, row in enumerate(listed)
        if not is_padding(row["image_id"]) and (one_file or lost[i] is None)
    ]
    fetched = fetch_files([listed[index] for index in wanted], config)
    for index, data in zip(wanted, fetched, strict=True):
        results[index] = data
    return results * rows.num_rows if one_file else results


def fetch_files(listed: Sequence[Mapping[str, Any]], config: Config) -> list[bytes | Exception]:
    """Return the bytes of each listed file, or the error of its fetch."""
    return fetch_all(
        [row["address"] or row["uri"] for row in listed],
        config.storage.input,
        versions=[ListedVersion(row["size"], row["etag"]) for row in listed],
        max_bytes=config.image.max_bytes,
    )


class Opener:
    """Open the files that were fetched together; slices of one file in a row share its opened form.

    Args:
        attempts: note the file that is opened.
        config: of the job.
    """

    def __init__(self, attempts: Attempts, config: Config) -> None:
        self._attempts = attempts
        self._config = config
        self._uri: str | None = None
        self._stack: Stack | Exception | None = None
        self._fetched_again: set[str] = set()

    def open(self, row: pa.Table, about: ListedRow, data: bytes | Exception) -> Stack | Exception:
        """Return the pictures of the file of a row, or why they cannot be had."""
        uri: str = row["uri"][0].as_py()
        if self._stack is None or self._uri != uri:
            self._stack = None  # free the volume before the next one is decoded
            with noting(self._attempts, [about]):
                self._uri, self._stack = uri, open_file(uri, data, self._config)
        return self._stack

    def open_again(
        self, row: pa.Table, about: ListedRow, data: bytes | Exception
    ) -> Stack | Exception | None:
        """Fetch a remote file that cannot be decoded once more, and open it.

        Returns:
            its pictures, or why they cannot be had; None if the bytes are the same as before.
        """
        uri: str = row["uri"][0].as_py()
        address = row["address"][0].as_py() or uri
        if isinstance(data, Exception) or not is_remote(address) or uri in self._fetched_again:
            return None
        self._fetched_again.add(uri)
        with noting(self._attempts, [about]):
            (again,) = fetch_files(row.to_pylist(), self._config)
            if isinstance(again, Exception) or again == data:
                return None
            self._uri, self._stack = uri, open_file(uri, again, self._config)
        return self._stack


def open_file(uri: str, data: bytes | Exception, config: Config) -> Stack | Exception:
    """Return the pictures of a file, or why they cannot be had."""
    if isinstance(data, Exception):
        return data
    try:
        return open_stack(data, uri, config.image)
    except Exception as problem:  # noqa: BLE001  (a bad file must not end the job)
        return NotOpenedError(problem)


class NotOpenedError(ImageError):
    """The bytes of a file cannot be opened as an image."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(str(problem))
        self.problem = problem
