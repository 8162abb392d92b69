"""Label the images of a Ray Data pipeline of the user."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Dataset

from salip_ray.cascade.geometry import check_image, class_references, make_working
from salip_ray.cluster.ray_private import cpus_of_operators
from salip_ray.cluster.resources import pin_precision, plan_pools, require_fit
from salip_ray.cluster.session import current_machine
from salip_ray.config import Config
from salip_ray.errors import ConfigError, ImageError, InputError
from salip_ray.models.identity import identify
from salip_ray.models.registry import is_prompted
from salip_ray.models.task_check import require_taught_classes
from salip_ray.pipeline.dataflow import add_actors, assign_stages
from salip_ray.pipeline.decoding.annotations import components_of
from salip_ray.pipeline.inputs import require_use_of_candidates
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.rows import columns, tables
from salip_ray.pipeline.rows.tables import in_tables
from salip_ray.pipeline.stages import stages_with_models
from salip_ray.pipeline.workers.model_check import require_models
from salip_ray.schema import Image, Size
from salip_ray.sources.decode import decode
from salip_ray.sources.mask_files import ClassIds

#: CPUs of one task of an operator that the user may append, such as ``write_parquet``.
_CONSUMER_CPUS = 1.0
_PROJECT_CPUS = 0.1


def label_dataset(
    images: Dataset,
    config: Config,
    *,
    image: str = "image",
    reference: str | None = None,
    candidates: str | None = None,
) -> Dataset:
    """Append the label columns to a dataset of images.

    Nothing is labelled before the result is consumed; only your own models are built once on a
    worker, so that one that cannot be built is named here. Rows keep all their own columns. An
    image that cannot be used becomes a row of status ``error``; it does not end the job.

    Args:
        images: rows with a column of images: uint8 RGB arrays [H, W, 3], grey arrays [H, W], or
            the bytes of an image file.
        config: from :func:`salip_ray.load_config`; its section ``pools`` sets the number of actors.
        image: name of the column of images.
        reference: name of a column of reference masks, integer arrays [H, W], for ``gt_sam``.
        candidates: name of a column of masks made elsewhere, integer arrays [H, W] or null: each
            component of a value above 0 is a candidate, which CLIP ranks with the proposed ones.

    Returns:
        The rows with ``height, width, status, outcomes, error, masks, ranking`` and the like, as in
        :data:`salip_ray.schema.LABEL_SCHEMA`.

    Raises:
        ConfigError: ``gt_sam`` is a mode but ``reference`` is None, no retriever would rank the
            candidates, or the bundled CLIP was not taught a class.
        InputError: the dataset lacks a column, or has one with the name of a label column.
        WeightsError: a checkpoint is missing or altered.
        ModelError: a worker cannot import or build a model of another package.
        ResourceError: the actor pools and the other operators of the dataset do not fit the
            cluster.

    Examples:
        >>> from pathlib import Path
        >>> import ray
        >>> from salip_ray import label_dataset, load_config
        >>> data = Path("xrays/chest_xray-0000.png").read_bytes()
        >>> images = ray.data.from_items([{"image": data}])
        >>> labelled = label_dataset(images, load_config("lungs"))
        >>> labelled.take(1)[0]["status"]
        'ok'
    """
    if "gt_sam" in config.run.modes and reference is None:
        raise ConfigError("run.modes has gt_sam: name the column of reference masks as reference")
    if is_prompted(config):
        raise ConfigError("propose.model prompts takes its boxes from label(prompts=...)")
    require_use_of_candidates(config, given=candidates is not None)
    config = config.without_volumes()  # rows leave one by one, in any order
    require_taught_classes(config)
    identify(config)
    schema = images.schema(fetch_if_missing=False)
    if schema is not None:
        _check_columns(schema.names, image, reference, candidates)
    machine = current_machine()
    fetch_cpus = config.pools.fetch_cpus
    # Actors hold their CPUs to the end: the reads and maps around them need some, too.
    other_cpus = max(_CONSUMER_CPUS, cpus_of_operators(images))
    pools = plan_pools(config.pools, stages_with_models(config), machine, other_cpus=other_cpus)
    require_fit(pools, fetch_cpus, machine, other_cpus)
    config = pin_precision(config, pools)
    require_models(config, pools)
    rows = images.map_batches(
        partial(prepare, config=config, image=image, reference=reference, candidates=candidates),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=fetch_cpus,
    )
    reporter = StageReporter()
    for stages, pool in assign_stages(config, pools):
        rows = add_actors(rows, stages, pool, config, reporter)
    return rows.drop_columns(["_png", "_seconds", "_fallbacks"], num_cpus=_PROJECT_CPUS)


def prepare(
    batch: pa.Table,
    config: Config,
    image: str,
    reference: str | None,
    candidates: str | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of a batch with the columns that PROPOSE needs."""
    _check_columns(batch.column_names, image, reference, candidates)
    rows = map(tables.as_arrays, _rows(batch, config, image, reference, candidates))
    yield from in_tables(batch, rows, columns.DECODED)


def _rows(
    batch: pa.Table, config: Config, image: str, reference: str | None, candidates: str | None
) -> Iterator[Mapping[str, Any]]:
    """Yield the new cells of each row."""
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        began = time.perf_counter()
        values: dict[str, Any] = dict.fromkeys(columns.DECODED)
        try:
            values |= _prepared(row, config, image, reference, candidates)
        except Exception as problem:  # noqa: BLE001  (a bad row must not end the job)
            values |= {"status": "error", "error": columns.error("decode", problem)}
        yield {**values, "_seconds": {"fetch": time.perf_counter() - began}}


def _prepared(
    row: pa.Table, config: Config, image: str, reference: str | None, candidates: str | None
) -> dict[str, Any]:
    pixels = _pixels(row[image][0].as_py(), config)
    height, width = pixels.shape[:2]
    masks = given = None
    if (ids := _ids(row, reference, "reference", (height, width))) is not None:
        masks = class_references(ids, config.task.classes)
    if (ids := _ids(row, candidates, "mask of candidates", (height, width))) is not None:
        given = components_of(ids, config)
    return {
        "status": "ok",
        "height": height,
        "width": width,
        "_references": columns.pack_references(masks),
        "_prompts": columns.pack_prompts(given),
        **columns.pack_working(make_working(pixels, config.image)),
    }


def _ids(row: pa.Table, column: str | None, what: str, size: Size) -> ClassIds | None:
    """Return the values of a mask in a row, [H, W]; None if it has none."""
    if column is None or (stored := row[column][0].as_py()) is None:
        return None
    ids = np.asarray(stored)
    if ids.shape != size:
        height, width = size
        raise ImageError(
            f"the {what} has the shape {list(ids.shape)}, its image {height} x {width}"
        )
    return ids


def _pixels(value: Any, config: Config) -> Image:
    if isinstance(value, bytes):
        return decode(value, "", config.image)
    if value is None:
        raise ImageError("the row has no image")
    pixels = np.asarray(value)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    check_image(pixels)
    return pixels


def _check_columns(names: list[str], *wanted_names: str | None) -> None:
    for wanted in filter(None, wanted_names):
        if wanted not in names:
            raise InputError(
                f"the dataset has no column {wanted!r}; its columns are {', '.join(names)}"
            )
    if taken := sorted(set(names) & {*columns.LABELS, *columns.INTERNAL}):
        raise InputError(f"the dataset has a column {taken[0]!r} already: rename it first")
