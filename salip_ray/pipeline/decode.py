"""Fetch and decode the images of manifest rows, in CPU tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from salip_ray.cascade.geometry import class_references, make_working, reference_boxes
from salip_ray.config import Config
from salip_ray.errors import ImageError
from salip_ray.output.manifest import is_padding
from salip_ray.pipeline import columns, tables
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.tables import in_tables
from salip_ray.pipeline.workers.deaths import Attempts, attempts_of, given_up
from salip_ray.schema import Box, Image, ImageRef, Mask
from salip_ray.sources.decode import is_blank, only_picture, open_stack, picture_at
from salip_ray.sources.fetch import ListedVersion, fetch_all
from salip_ray.sources.formats.stack import Stack
from salip_ray.sources.locations import image_id, is_remote, public_uri
from salip_ray.sources.privacy import hides_uri, pseudonym, scrub
from salip_ray.sources.prompts import Prompts, boxes_in_image
from salip_ray.sources.references import References

_FILES_AT_ONCE = 16  # fetched together; their bytes are all in memory


def fetch_and_decode(
    batch: pa.Table,
    config: Config,
    references: References | None,
    reporter: StageReporter,
    prompts: Prompts | None = None,
) -> Iterator[pa.Table]:
    """Fetch a few images at a time and yield their rows, decoded and brought to working size.

    Args:
        batch: rows of the manifest, as :data:`salip_ray.output.manifest.TODO_SCHEMA`.
        config: its ``image``, ``task`` and ``storage.input`` are used.
        references: the reference masks, for GT-SAM.
        prompts: the boxes of images, if they are given.
        reporter: counts the rows.
    """
    of_manifest = pa.table(
        {
            **{name: batch[name] for name in columns.OF_MANIFEST},
            "uri": [shown_uri(batch.slice(i, 1), config) for i in range(batch.num_rows)],
            "_shard": batch["shard"],
            "_seq": batch["seq"],
        }
    )
    rows = map(tables.as_arrays, _rows(batch, config, references, reporter, prompts))
    yield from in_tables(of_manifest, rows, columns.DECODED)
    reporter.flush()


def _rows(
    batch: pa.Table,
    config: Config,
    references: References | None,
    reporter: StageReporter,
    prompts: Prompts | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Yield the new cells of each row."""
    attempts = attempts_of(reporter)
    deaths = attempts.deaths(now=True)  # this task may be the next try of a dead worker's
    for rows in _files_at_once(batch, deaths):
        listed = [_Listed.of(row) for row in rows.to_pylist()]
        lost = [given_up(deaths, row.image_id, row.volume, row.file) for row in listed]
        began = time.perf_counter()
        with _noting(attempts, listed):
            files = _fetch(rows, lost, config)
        share = (time.perf_counter() - began) / rows.num_rows
        opened: tuple[str, Stack | Exception] | None = None
        fetched_twice: set[str] = set()
        for index, data in enumerate(files):
            began = time.perf_counter()
            row, about = rows.slice(index, 1), listed[index]
            uri = row["uri"][0].as_py()
            stack: Stack | Exception | None = lost[index]
            if stack is None:
                if opened is None or opened[0] != uri:
                    opened = None  # free the volume before the next one is decoded
                    with _noting(attempts, [about]):
                        opened = uri, _opened(uri, data, config)  # once for all slices of a volume
                stack = opened[1]
            with attempts.at(about.image_id, about.volume):
                values = _decoded(row, stack, config, references, prompts)
            if uri not in fetched_twice and values["error"] is not None:
                fetched_twice.add(uri)
                with _noting(attempts, [about]):
                    again = _fetch_other_bytes(row, data, values["error"], config)
                    if again is not None:  # the first bytes were damaged on their way
                        stack = _opened(uri, again, config)
                        opened = uri, stack
                if again is not None:
                    with attempts.at(about.image_id, about.volume):
                        values = _decoded(row, stack, config, references, prompts)
            seconds = share + time.perf_counter() - began
            named = {"shard": row["shard"][0].as_py(), "image_id": row["image_id"][0].as_py()}
            if not is_padding(about.image_id):
                reporter.done(
                    "fetch",
                    seconds,
                    error=values["error"],
                    row={**named, "uri": shown_uri(row, config)},
                )
            yield {**values, "_seconds": {"fetch": seconds}}


@dataclass(frozen=True)
class _Listed:
    """A row as its deaths of workers are counted: its image, its volume and its file."""

    image_id: str
    volume: str | None
    file: str | None  # None if the file holds one image

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> _Listed:
        several = row["index"] is not None and row["uri"]
        return cls(row["image_id"], row["volume"], image_id(row["uri"]) if several else None)

    @property
    def key(self) -> str:
        """The key of the file; empty for padding."""
        return self.file or self.image_id


def _noting(attempts: Attempts, listed: Sequence[_Listed]) -> AbstractContextManager[None]:
    """Note the files of some rows, for the time of a block that fetches or opens them."""
    keys = list(dict.fromkeys(row.key for row in listed if row.key))
    if len(keys) != 1:
        return attempts.at_one_of(keys)
    return attempts.at(keys[0], None if listed[0].file else listed[0].volume)


def _files_at_once(batch: pa.Table, deaths: Mapping[str, int]) -> Iterator[pa.Table]:
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


def _fetch(
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
    fetched = _fetch_files([listed[index] for index in wanted], config)
    for index, data in zip(wanted, fetched, strict=True):
        results[index] = data
    return results * rows.num_rows if one_file else results


def _fetch_files(listed: Sequence[Mapping[str, Any]], config: Config) -> list[bytes | Exception]:
    return fetch_all(
        [row["address"] or row["uri"] for row in listed],
        config.storage.input,
        versions=[ListedVersion(row["size"], row["etag"]) for row in listed],
        max_bytes=config.image.max_bytes,
    )


def _fetch_other_bytes(
    row: pa.Table, data: bytes | Exception, error: Mapping[str, Any] | None, config: Config
) -> bytes | None:
    """Fetch a remote file that cannot be decoded again; return its bytes if they differ."""
    undecodable = error is not None and error["stage"] == "decode" and isinstance(data, bytes)
    listed = row.to_pylist()[0]
    if not undecodable or not is_remote(listed["address"] or listed["uri"]):
        return None
    (again,) = _fetch_files([listed], config)
    return again if isinstance(again, bytes) and again != data else None


def _opened(uri: str, data: bytes | Exception, config: Config) -> Stack | Exception:
    if isinstance(data, Exception):
        return data
    try:
        return open_stack(data, uri, config.image)
    except Exception as problem:  # noqa: BLE001  (a bad file must not end the job)
        return _NotOpenedError(problem)


class _NotOpenedError(ImageError):
    """The bytes of a file cannot be opened as an image."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _decoded(
    row: pa.Table,
    stack: Stack | Exception,
    config: Config,
    references: References | None,
    prompts: Prompts | None,
) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(columns.DECODED)
    stage = "fetch"
    try:
        if isinstance(stack, _NotOpenedError):
            stage = "decode"
            raise stack.problem
        if isinstance(stack, Exception):
            raise stack
        stage = "decode"
        index = row["index"][0].as_py()
        image = only_picture(stack) if index is None else picture_at(stack, index)
        height, width = image.shape[:2]
        values = {**nothing, "status": "ok", "height": height, "width": width}
        values["spacing"] = None if stack.spacing is None else list(stack.spacing)
        if index is not None and config.image.skip_blank and is_blank(image):
            return {**values, "status": "empty", "_working_size": [height, width]}
        stage = "reference"
        picture = ImageRef(row["uri"][0].as_py(), index)
        values["_references"] = columns.pack_references(
            find_references(picture, image, config, references, stack)
        )
        stage = "prompts"
        values["_prompts"] = columns.pack_prompts(
            find_prompts(picture, image, config, prompts, stack)
        )
    except Exception as problem:  # noqa: BLE001  (a bad file must not end the job)
        error = columns.error(stage, problem)
        picture = ImageRef(row["uri"][0].as_py(), row["index"][0].as_py())
        mask = references.named(picture) if references is not None else None
        error["message"] = without_paths(error["message"], row, config, mask)
        return {**nothing, "status": "error", "error": error}
    return values | columns.pack_working(make_working(image, config.image))


def shown_uri(row: pa.Table, config: Config) -> str:
    """Return the URI of an image as the output shows it: hidden names become a pseudonym."""
    uri: str = row["uri"][0].as_py()
    hidden = hides_uri(uri, config.privacy)
    return pseudonym(row["image_id"][0].as_py()) if hidden else uri


def without_paths(message: str, row: pa.Table, config: Config, mask: ImageRef | None) -> str:
    """Return an error message without hidden paths; ``mask`` is the image's reference, if any."""
    uri, address = row["uri"][0].as_py(), row["address"][0].as_py()
    if not hides_uri(uri, config.privacy):
        return message
    names = (address, uri, None if mask is None else mask.uri)
    return scrub(message, names, pseudonym(row["image_id"][0].as_py()))


def find_prompts(
    picture: ImageRef, image: Image, config: Config, prompts: Prompts | None, stack: Stack
) -> list[tuple[str, Box]] | None:
    """Return class and box of each prompt of an image; None if no image has prompts.

    The boxes of masks are those of GT-SAM.

    Raises:
        ImageError: a box is not on the image, or it is not clear which image the boxes are of.
    """
    if prompts is None:
        return None
    if prompts.masks is None:
        size = image.shape[0], image.shape[1]
        return boxes_in_image(prompts.find(picture), size)
    masks = find_references(picture, image, config, prompts.masks, stack) or {}
    return [(label, box) for label, mask in masks.items() for box in reference_boxes(mask)]


def find_references(
    picture: ImageRef, image: Image, config: Config, references: References | None, stack: Stack
) -> dict[str, Mask] | None:
    """Return the reference mask of each class, bool [H, W], or None if the image has none.

    Raises:
        ImageError: the mask cannot be read, is not on the image's grid, or several images share its
            name.
    """
    if references is None:
        return None
    mask = references.find(picture)
    if mask is None:
        if reason := references.ambiguity(picture):
            raise ImageError(reason)
        return None
    ids = references.load(mask, config.image, count=stack.count, spacing=stack.spacing)
    if ids.shape != image.shape[:2]:
        raise ImageError(
            f"reference mask {public_uri(mask.uri)} has {ids.shape[0]} x {ids.shape[1]} pixels, "
            f"its image {image.shape[0]} x {image.shape[1]}"
        )
    return class_references(ids, config.task.classes)
