"""Label the images of error rows again, in the shards where they are.

The recipe is that of the output. With ``volumes.consistent``, the other slices of a failed slice's
volume in its shard are labelled again, too; all other rows stay unchanged. Once its errors are
gone, a shard has the bytes that it would have had without them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.config import Config, StorageConfig, load_config
from salip_ray.config.assignments import parse_assignments
from salip_ray.errors import ConfigError, OutputError, ResumeError
from salip_ray.models.identity import identify, pin
from salip_ray.models.registry import describe
from salip_ray.output.claim import differences
from salip_ray.output.commit import commit_shard, committed_shards
from salip_ray.output.committed_rows import find_errors, merge_committed_rows
from salip_ray.output.job_record import read_manifest, require_manifest_location
from salip_ray.output.layout import MANIFEST
from salip_ray.output.lease import held
from salip_ray.output.manifest import (
    Manifest,
    align_to_blocks,
    from_frozen,
    manifest_digest,
)
from salip_ray.output.run_record import read_run
from salip_ray.output.store import Store
from salip_ray.output.summary import Summary
from salip_ray.pipeline.inputs import (
    among_images,
    list_input,
    open_candidates,
    open_prompts,
    open_references,
)
from salip_ray.pipeline.job import Job, conclude, summarise_run
from salip_ray.pipeline.monitoring.progress import ProgressReporter
from salip_ray.pipeline.run import run_on_ray
from salip_ray.sources.prompts import Prompts
from salip_ray.wording import counted

_MAY_CHANGE = (
    *("pools", "run", "sam.checkpoint", "clip.pretrained", "refine.sam.checkpoint"),
    *("propose.weights", "retrieve.weights", "refine.weights"),
)
_SIMILAR = 8  # shards are done together if none has this many times the errors of another


def retry(
    output: str | os.PathLike[str],
    *,
    storage: StorageConfig | None = None,
    overrides: Iterable[str] = (),
    input: str | os.PathLike[str] | None = None,  # noqa: A002  (the word a person would use)
    manifest: str | None = None,
    quiet: bool = False,
) -> Summary:
    """Label the images again whose rows are errors, once a job has ended.

    Args:
        output: an output of :func:`salip_ray.label`, all of its shards committed.
        storage: storage options of input, output and weights.
        overrides: ``"section.field=value"`` of ``pools`` or ``run``, or another address of the same
            weights (``sam.checkpoint``, ``clip.pretrained``, ``refine.sam.checkpoint``,
            ``propose.weights`` and the like). The rest of the recipe is that of the output.
        input: where the images were listed. It is needed only if their addresses are signed: an
            output holds no signatures.
        manifest: the manifest of the output, if the job was created with ``manifest``.
        quiet: show no progress.

    Raises:
        OutputError: the location is not an output, is not complete, or (ResumeError) was made with
            other weights, or (LeaseError) is being written by another driver.
        JobError: the job was stopped, failed, or still has too many error rows.

    Examples:
        >>> from salip_ray import retry
        >>> retry("labels", quiet=True).error_share
        0.0
    """
    started, progress = time.monotonic(), ProgressReporter(quiet=quiet)
    storage = storage or StorageConfig()
    store = Store(
        output, storage.output, elsewhere={} if manifest is None else {MANIFEST: manifest}
    )
    run = read_run(store)
    if run is not None:
        require_manifest_location(store, run)
    frozen = read_manifest(store)
    if run is None or frozen is None:
        raise OutputError(f"output {store} holds no run.json and manifest: nothing was labelled")
    fingerprint = run["fingerprint"]
    if "consensus" in fingerprint:
        raise OutputError(
            f"output {store} is a consensus: retry its runs, then make the consensus of them in a "
            "new output"
        )
    rows_per_shard = fingerprint["recipe"]["run"]["rows_per_shard"]
    if manifest_digest(frozen, rows_per_shard) != fingerprint["manifest"]["sha256"]:
        raise OutputError(
            f"{store.path_of(MANIFEST)} is not the manifest of {store}: give the right one with "
            "--manifest, or resume the label command if it was stopped"
        )
    config = _load_recipe(fingerprint["recipe"], storage, overrides)
    weights = identify(config)
    _check_weights(store, fingerprint["weights"], weights)
    _check_models(store, fingerprint.get("models", {}), describe(config))
    references = open_references(fingerprint["references"], config)
    prompts = _open_prompts(store, fingerprint, config)
    whole = _with_addresses(frozen, config, input)
    references, prompts = among_images(references, prompts, whole)
    with held(store) as lease:
        pinned, version = pin(config, weights), run["schema_version"]
        job = Job(pinned, whole, store, references, prompts, lease, progress, version)
        _require_complete(job)
        failed, unfinished = find_errors(store, whole)
        _repair_statistics(job, unfinished)
        verb = "is an error row" if len(failed) == 1 else "are error rows"
        progress.report(f"{len(failed):,} of {counted(whole.n_images, 'image')} {verb}")
        todo = _rows_to_label(whole.table, failed, config)
        for rows, rows_per_block in _group_similar(todo):
            lease.require_owner()
            aligned = align_to_blocks(rows, rows_per_block)
            run_on_ray(job, aligned, rows_per_block=rows_per_block, merge=True)
        summary = summarise_run(job, started, todo.num_rows)
    return conclude(summary, config, progress)


def _rows_to_label(table: pa.Table, failed: pa.Array, config: Config) -> pa.Table:
    """Return the rows of failed images, and of the slices whose labels are chosen with them."""
    chosen = pc.is_in(table["image_id"], failed)
    if config.volumes.consistent:
        piece = pc.binary_join_element_wise(table["shard"].cast(pa.string()), table["volume"], "/")
        with_failed = piece.filter(chosen).drop_null()
        chosen = pc.or_(chosen, pc.is_in(piece, with_failed.combine_chunks()).fill_null(False))
    return table.filter(chosen)


def _open_prompts(store: Store, fingerprint: Mapping[str, Any], config: Config) -> Prompts | None:
    """Return the prompts or candidates that the output was made with."""
    for name, opened in (("prompts", open_prompts), ("candidates", open_candidates)):
        recorded = fingerprint.get(name) or {}
        given = opened(recorded.get("uri"), config)
        if given is None:
            continue
        if given.sha256 != recorded["sha256"]:
            raise ResumeError(
                f"output {store} was made with other {name}: {given.location} has changed since"
            )
        return given
    return None


def _require_complete(job: Job) -> None:
    shards = set(range(job.manifest.n_shards))
    if missing := len(shards - committed_shards(job.store).keys()):
        verb = "is" if missing == 1 else "are"
        raise OutputError(
            f"{missing:,} of {counted(len(shards), 'shard')} of output {job.store} {verb} not "
            "committed: finish the job with label first"
        )


def _repair_statistics(job: Job, shards: Iterable[int]) -> None:
    """Write the statistics of shards again, with their rows unchanged."""
    classes = {spec.label: spec.class_id for spec in job.config.task.classes}
    for shard in shards:
        job.lease.require_owner()
        rows, before = merge_committed_rows(job.store, shard)
        size = int(job.manifest.sizes[shard])
        commit_shard(job.store, shard, rows, size, classes, before=before, version=job.version)


def _group_similar(todo: pa.Table) -> Iterator[tuple[pa.Table, int]]:
    """Yield rows of shards with a similar number of errors, and the largest of these numbers.

    Rows that are done together are padded to the same number per shard: a thousand shards with one
    error each must not become as large as a shard with a thousand errors.
    """
    sizes = np.bincount(todo["shard"].to_numpy())
    low = 1
    while low <= sizes.max(initial=0):
        similar = np.flatnonzero((sizes >= low) & (sizes < low * _SIMILAR)).astype(np.int32)
        low *= _SIMILAR
        if len(similar):
            rows = todo.filter(pc.is_in(todo["shard"], pa.array(similar)))
            yield rows, int(sizes[similar].max())


def _load_recipe(
    recipe: Mapping[str, Any], storage: StorageConfig, overrides: Iterable[str]
) -> Config:
    changes = parse_assignments(overrides)
    refused = [field for field in _fields(changes) if not _may_change(field)]
    if refused:
        raise ConfigError(
            f"--set {refused[0]}=...: a retry uses the recipe of its output; only pools, run and "
            "the addresses of its weights may be set"
        )
    # A recipe without this section is of single images, whatever the preset says now.
    config = load_config({"volumes": {"consistent": False}, **recipe}, overrides=changes)
    if config.recipe()["run"] != recipe["run"]:
        raise ConfigError("--set run...: a retry uses the modes and the shards of its output")
    return config.model_copy(update={"storage": storage})


def _may_change(field: str) -> bool:
    """Return True if a field is one of those that may change, or part of one."""
    return any(field == name or field.startswith(f"{name}.") for name in _MAY_CHANGE)


def _fields(changes: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield the names of all changed fields, such as ``sam.checkpoint``."""
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


def _check_models(store: Store, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changes = list(differences(before, now, "models"))
    if changes:
        raise ResumeError(
            f"output {store} was made with other models ({'; '.join(changes)}): a retry needs the "
            "same code"
        )


def _with_addresses(
    frozen: pa.Table, config: Config, location: str | os.PathLike[str] | None
) -> Manifest:
    """Return the manifest of the output, with the addresses of ``location`` if it is given."""
    addresses = None if location is None else list_input(location, config).manifest.table
    return from_frozen(frozen, config.run.rows_per_shard, addresses=addresses)
