"""From manifest rows to pixels: the CPU tasks at the head of the pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa

from salip_ray.cascade.reference import class_references
from salip_ray.cascade.resolution import to_working
from salip_ray.config import Config
from salip_ray.errors import ImageError
from salip_ray.pipeline import columns
from salip_ray.pipeline.attempts import MOST_DEATHS, WorkerDiedError, attempts_of
from salip_ray.pipeline.monitor import Reporter
from salip_ray.rows import Image, Mask
from salip_ray.sources.decode import check_bytes, decode
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.references import References

_TOGETHER = 16  # files fetched at once; their bytes are all in memory
_BODIES = 3  # how often a body of the wrong length is fetched


def fetch_and_decode(
    batch: pa.Table, config: Config, references: References | None, reporter: Reporter
) -> Iterator[pa.Table]:
    """Fetch a few images at a time and yield their rows, decoded and brought to working size.

    Args:
        batch: rows of the manifest, as :data:`salip_ray.pipeline.plan.TODO_SCHEMA`.
        config: its ``image``, ``task`` and ``storage.input`` are used.
        references: where reference masks are found, for GT-SAM.
        reporter: told of every row.
    """
    attempts = attempts_of(reporter)
    deaths = attempts.deaths(batch["image_id"].to_pylist())
    for start in range(0, batch.num_rows, _TOGETHER):
        rows = batch.slice(start, _TOGETHER)
        began = time.perf_counter()
        found = _fetch(rows, config)
        share = (time.perf_counter() - began) / rows.num_rows
        for index, data in enumerate(found):
            began = time.perf_counter()
            row = rows.slice(index, 1)
            key = row["image_id"][0].as_py()
            if (died := deaths.get(key, 0)) >= MOST_DEATHS:
                data = WorkerDiedError(died)
            with attempts.at(key):
                values = _decoded(row["uri"][0].as_py(), data, config, references)
            seconds = share + time.perf_counter() - began
            named = {"shard": row["shard"][0].as_py(), "image_id": row["image_id"][0].as_py()}
            reporter.done(
                "fetch", seconds, error=values["error"], row={**named, "uri": row["uri"][0].as_py()}
            )
            kept = pa.table(
                {
                    "image_id": row["image_id"],
                    "uri": row["uri"],
                    "_shard": row["shard"],
                    "_seq": row["seq"],
                }
            )
            yield columns.row_table(kept, {**values, "_seconds": {"fetch": seconds}})


def _fetch(rows: pa.Table, config: Config) -> list[bytes | Exception]:
    """Bytes or the reason why not; what is known to be too large is not fetched at all.

    A body that is not as long as was listed is fetched again: some proxies end one early and say
    that it is whole. Where it stays so the file itself is another.
    """
    listed = rows.select(["uri", "size", "address"]).to_pylist()
    results: list[bytes | Exception] = [b""] * len(listed)
    wanted: list[int] = []
    for index, row in enumerate(listed):
        try:
            if not row["uri"]:  # padding
                raise ImageError("no image")
            check_bytes(row["size"] or 0, config.image)
            wanted.append(index)
        except ImageError as problem:
            results[index] = problem
    for _ in range(_BODIES):
        addresses = [listed[index]["address"] or listed[index]["uri"] for index in wanted]
        for index, data in zip(wanted, fetch_all(addresses, config.storage.input), strict=True):
            results[index] = data
        wanted = [index for index in wanted if _is_short(results[index], listed[index]["size"])]
        if not wanted:
            break
    for index in wanted:
        size = len(cast("bytes", results[index]))
        results[index] = ImageError(
            f"the file has {size:,} bytes, but {listed[index]['size']:,} when it was listed: "
            "it was changed since, or did not arrive whole"
        )
    return results


def _is_short(data: bytes | Exception, size: int | None) -> bool:
    return isinstance(data, bytes) and size is not None and len(data) != size


def _decoded(
    uri: str, data: bytes | Exception, config: Config, references: References | None
) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(columns.DECODED)
    stage = "fetch"
    try:
        if isinstance(data, Exception):
            raise data
        stage = "decode"
        image = decode(data, uri, config.image)
        height, width = image.shape[:2]
        values = {**nothing, "status": "ok", "height": height, "width": width}
        stage = "reference"
        values["_references"] = columns.pack_references(
            find_references(uri, image, config, references)
        )
    except Exception as problem:  # noqa: BLE001  (a bad file must not end the job)
        return {**nothing, "status": "error", "error": columns.error(stage, problem)}
    return values | columns.pack_working(to_working(image, config.image.long_side))


def find_references(
    uri: str, image: Image, config: Config, references: References | None
) -> dict[str, Mask] | None:
    """The reference mask of each class, or None where the image has none.

    Raises:
        ImageError: the mask cannot be read, or is not of the image's size.
    """
    mask_uri = references.find(uri) if references is not None else None
    if references is None or mask_uri is None:
        return None
    ids = references.load(mask_uri)
    if ids.shape != image.shape[:2]:
        raise ImageError(
            f"reference mask {mask_uri} has {ids.shape[0]} x {ids.shape[1]} pixels, "
            f"its image {image.shape[0]} x {image.shape[1]}"
        )
    return class_references(ids, config.task.classes)
