"""Doing failed images again: only rows of status ``error``, in the shards where they are.

The recipe is that of the output. Everything else of a shard stays as it is, so that once its errors
are gone a shard has the bytes it would have had without them.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from salip_ray.config import Config, StorageConfig, load_config
from salip_ray.config.assignments import parse_assignments
from salip_ray.errors import ConfigError, OutputError, ResumeError
from salip_ray.models.weights import identify, pin
from salip_ray.output.commit import commit_shard, describe
from salip_ray.output.committed_rows import merge_committed_rows
from salip_ray.output.job_record import (
    committed_shards,
    read_manifest,
    read_run,
    require_manifest_location,
)
from salip_ray.output.layout import MANIFEST, SHARDS, STATS, shard_file
from salip_ray.output.lease import held
from salip_ray.output.manifest import Manifest, align_to_blocks, from_frozen, make_manifest
from salip_ray.output.store import Store
from salip_ray.output.summary import Summary, repair_summary, summarise, write_summary
from salip_ray.pipeline.expand import expand
from salip_ray.pipeline.job import conclude, open_references
from salip_ray.pipeline.progress import ProgressReporter
from salip_ray.pipeline.run import run_on_ray
from salip_ray.sources.listing import list_images

_MAY_CHANGE = ("pools", "run", "sam.checkpoint", "clip.pretrained", "refine.sam.checkpoint")
_ALIKE = 8  # shards with up to so many times the errors of another are done along with it


def retry(
    output: str | os.PathLike[str],
    *,
    storage: StorageConfig | None = None,
    overrides: Iterable[str] = (),
    input: str | os.PathLike[str] | None = None,  # noqa: A002  (the word a person would use)
    manifest: str | None = None,
    quiet: bool = False,
) -> Summary:
    """Label the images of an ended job again whose rows are errors.

    Args:
        output: what :func:`salip_ray.label` wrote, all of its shards committed.
        storage: storage options of input, output and weights.
        overrides: ``"section.field=value"`` of ``pools`` or ``run``, or another address of the same
            weights (``sam.checkpoint``, ``clip.pretrained``, ``refine.sam.checkpoint``); all else
            of the recipe is the output's.
        input: where the images were listed; needed where their addresses are signed, as signatures
            are not kept in the output.
        manifest: the output's manifest, where it is kept elsewhere.
        quiet: show no progress.

    Raises:
        OutputError: the output is not one of ours, is not complete, or (ResumeError) was made with
            other weights, or (LeaseError) is being written by another driver.
        JobError: the job was stopped or broke down, or too many rows are still errors.

    Example:
        >>> from salip_ray import retry
        >>> retry("labels", quiet=True).error_share
        0.0
    """
    began, progress = time.monotonic(), ProgressReporter(quiet=quiet)
    storage = storage or StorageConfig()
    elsewhere = {} if manifest is None else {MANIFEST: manifest}
    store = Store(output, storage.output, elsewhere=elsewhere)
    run = read_run(store)
    if run is not None:
        require_manifest_location(store, run)
    frozen = read_manifest(store)
    if run is None or frozen is None:
        raise OutputError(f"output {store} holds no run.json and manifest: nothing was labelled")
    fingerprint = run["fingerprint"]
    config = _config(fingerprint["recipe"], storage, overrides)
    weights = identify(config)
    _check_weights(store, fingerprint["weights"], weights)
    known = open_references(fingerprint["references"], config)
    plan = _plan(frozen, config, input)
    with held(store) as lease:
        if missing := plan.n_shards - len(committed_shards(store) & set(range(plan.n_shards))):
            raise OutputError(
                f"{missing:,} of {plan.n_shards:,} shards of output {store} are not committed: "
                "end the job with label first"
            )
        failed, stale = failed_images(store, plan)
        classes = {spec.label: spec.class_id for spec in config.task.classes}
        for shard in stale:
            lease.require_owner()
            kept, before = merge_committed_rows(store, shard)
            commit_shard(store, shard, kept, int(plan.sizes[shard]), classes, before=before)
        progress.report(f"{len(failed):,} of {plan.n_images:,} images are errors")
        todo = plan.table.filter(pc.is_in(plan.table["image_id"], failed))
        for rows, block in _of_like_size(todo):
            lease.require_owner()
            run_on_ray(
                align_to_blocks(rows, block),
                plan,
                pin(config, weights),
                store,
                known,
                progress,
                lease,
                block=block,
                keeping=True,
            )
        summary = summarise(
            store, plan, wall_seconds=time.monotonic() - began, images_in_run=len(failed)
        )
        if todo.num_rows:
            lease.require_owner()
            write_summary(store, summary)
        else:
            repair_summary(store, summary)
    return conclude(summary, config, progress)


def failed_images(store: Store, plan: Manifest) -> tuple[pa.Array, list[int]]:
    """Ids of the images whose committed rows are errors, and the shards with stale statistics.

    The rows are the truth: a retry that was killed may have left statistics of other rows beside
    them.
    """
    stats = store.read_all([shard_file(STATS, shard) for shard in range(plan.n_shards)])
    failed: list[str] = []
    stale: list[int] = []
    for shard in range(plan.n_shards):
        data = store.read(shard_file(SHARDS, shard))
        if data is not None:
            told = json.loads(stats.get(shard_file(STATS, shard), b"{}"))
            if told.get("files", {}).get(SHARDS) != describe(data):
                stale.append(shard)
            rows = pq.read_table(io.BytesIO(data), columns=["image_id", "status"])
            is_error = pc.equal(rows["status"], "error")
            failed += rows.filter(is_error)["image_id"].to_pylist()
    return pa.array(failed, pa.string()), stale


def _of_like_size(todo: pa.Table) -> Iterator[tuple[pa.Table, int]]:
    """The rows of shards with about as many errors, and the most that one of them has.

    Rows that are done together are filled up to the same number a shard: a thousand shards with an
    error each are not to be as large as the one that has a thousand.
    """
    sizes = np.bincount(todo["shard"].to_numpy())
    low = 1
    while low <= sizes.max(initial=0):
        alike = np.flatnonzero((sizes >= low) & (sizes < low * _ALIKE)).astype(np.int32)
        low *= _ALIKE
        if len(alike):
            rows = todo.filter(pc.is_in(todo["shard"], pa.array(alike)))
            yield rows, int(sizes[alike].max())


def _config(recipe: Mapping[str, Any], storage: StorageConfig, overrides: Iterable[str]) -> Config:
    changes = parse_assignments(overrides)
    other = [field for field in _fields(changes) if not field.startswith(_MAY_CHANGE)]
    if other:
        raise ConfigError(
            f"--set {other[0]}=...: a retry uses the recipe of its output; only pools, run and the "
            "addresses of its weights may be set"
        )
    config = load_config(recipe, overrides=changes)
    if config.recipe()["run"] != recipe["run"]:
        raise ConfigError("--set run...: a retry uses the modes and the shards of its output")
    return config.model_copy(update={"storage": storage})


def _fields(changes: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The names of all fields that are changed, as ``sam.checkpoint``."""
    for name, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from _fields(value, f"{at}{name}.")
        else:
            yield f"{at}{name}"


def _check_weights(store: Store, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for role in before:
        if now.get(role) != before[role]:
            raise ResumeError(
                f"output {store} was made with the {role} weights {before[role][:16]}..., found "
                f"{str(now.get(role))[:16]}...: a retry needs the same file"
            )


def _plan(frozen: pa.Table, config: Config, location: str | os.PathLike[str] | None) -> Manifest:
    if location is None:
        return from_frozen(frozen, config.run.rows_per_shard)
    listing, _ = expand(list_images(location, config.storage.input), config)
    listed = make_manifest(listing, config.run.rows_per_shard)
    return from_frozen(frozen, config.run.rows_per_shard, addresses=listed.table)
