"""Fetch and decode the images of manifest rows, in CPU tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from salip_ray.cascade.geometry import make_working
from salip_ray.config import Config
from salip_ray.output.manifest import is_padding
from salip_ray.pipeline.decoding.annotations import find_prompts, find_references
from salip_ray.pipeline.decoding.files import (
    ListedRow,
    NotOpenedError,
    Opener,
    fetch_bytes,
    files_at_once,
    noting,
)
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.rows import columns, tables
from salip_ray.pipeline.rows.tables import in_tables
from salip_ray.pipeline.workers.deaths import attempts_of, given_up
from salip_ray.schema import ImageRef
from salip_ray.sources.decode import is_blank, only_picture, picture_at
from salip_ray.sources.formats.stack import Stack
from salip_ray.sources.privacy import hides_uri, pseudonym, scrub
from salip_ray.sources.prompts import Prompts
from salip_ray.sources.references import References


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
        prompts: the prompts or candidates of images, if they are given.
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
    for rows in files_at_once(batch, deaths):
        listed = [ListedRow.of(row) for row in rows.to_pylist()]
        lost = [given_up(deaths, row.image_id, row.volume, row.file) for row in listed]
        began = time.perf_counter()
        with noting(attempts, listed):
            files = fetch_bytes(rows, lost, config)
        share = (time.perf_counter() - began) / rows.num_rows
        opener = Opener(attempts, config)
        for index, (about, data) in enumerate(zip(listed, files, strict=True)):
            began = time.perf_counter()
            row = rows.slice(index, 1)
            stack = lost[index] or opener.open(row, about, data)
            with attempts.at(about.image_id, about.volume):
                values = _decoded(row, stack, config, references, prompts)
            undecodable = values["error"] is not None and values["error"]["stage"] == "decode"
            if undecodable and (again := opener.open_again(row, about, data)) is not None:
                with attempts.at(about.image_id, about.volume):
                    values = _decoded(row, again, config, references, prompts)
            seconds = share + time.perf_counter() - began
            if not is_padding(about.image_id):
                shown = {"image_id": about.image_id, "uri": shown_uri(row, config)}
                shown["shard"] = row["shard"][0].as_py()
                reporter.done("fetch", seconds, error=values["error"], row=shown)
            yield {**values, "_seconds": {"fetch": seconds}}


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
        if isinstance(stack, NotOpenedError):
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
        stage = "prompts" if prompts is None else prompts.noun
        values["_prompts"] = columns.pack_prompts(
            find_prompts(picture, image, config, prompts, stack)
        )
    except Exception as problem:  # noqa: BLE001  (a bad file must not end the job)
        error = columns.error(stage, problem)
        picture = ImageRef(row["uri"][0].as_py(), row["index"][0].as_py())
        sources = (references, None if prompts is None else prompts.masks)
        masks = [masks.named(picture) for masks in sources if masks is not None]
        error["message"] = without_paths(error["message"], row, config, masks)
        return {**nothing, "status": "error", "error": error}
    return values | columns.pack_working(make_working(image, config.image))


def shown_uri(row: pa.Table, config: Config) -> str:
    """Return the URI of an image as the output shows it: hidden names become a pseudonym."""
    uri: str = row["uri"][0].as_py()
    hidden = hides_uri(uri, config.privacy)
    return pseudonym(row["image_id"][0].as_py()) if hidden else uri


def without_paths(
    message: str, row: pa.Table, config: Config, masks: Sequence[ImageRef | None]
) -> str:
    """Return an error message without hidden paths; ``masks`` are those of the image."""
    uri, address = row["uri"][0].as_py(), row["address"][0].as_py()
    if not hides_uri(uri, config.privacy):
        return message
    names = (address, uri, *(mask.uri for mask in masks if mask is not None))
    return scrub(message, names, pseudonym(row["image_id"][0].as_py()))
