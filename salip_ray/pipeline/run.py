"""The job: a location of images in, a location of labels out."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc
import ray
from ray.exceptions import RayError

from salip_ray.config import Config
from salip_ray.errors import ConfigError, JobError, SalipError
from salip_ray.models.weights import identify, pin
from salip_ray.pipeline.assembly import cascaded, decoded, streaming
from salip_ray.pipeline.attempts import notes_folder
from salip_ray.pipeline.headers import expand
from salip_ray.pipeline.interrupt import Stopped, graceful_stop
from salip_ray.pipeline.lease import Lease, held
from salip_ray.pipeline.monitor import Reporter, Snapshot, start_monitor
from salip_ray.pipeline.plan import Plan, make_plan
from salip_ray.pipeline.progress import Talker, summary_table
from salip_ray.pipeline.resources import Machine, cpus_needed, plan_pools, require_fit
from salip_ray.pipeline.resume import (
    MANIFEST,
    begin,
    committed_shards,
    make_fingerprint,
    read_run,
    record_devices,
)
from salip_ray.pipeline.session import ray_session
from salip_ray.pipeline.sink import ShardSink
from salip_ray.pipeline.stages import stages_of
from salip_ray.pipeline.store import Store
from salip_ray.pipeline.summary import Summary, summarise, write_summary
from salip_ray.pipeline.waiting import wait_for_nodes
from salip_ray.sources.listing import list_images
from salip_ray.sources.locations import public_uri
from salip_ray.sources.references import References

_DRAIN_SECONDS = 120.0


def label(
    input: str | os.PathLike[str],  # noqa: A002  (the word a person would use)
    output: str | os.PathLike[str],
    config: Config,
    *,
    references: str | None = None,
    manifest: str | None = None,
    quiet: bool = False,
    extend: bool = False,
) -> Summary:
    """Label every image of ``input`` and commit the labels to ``output``, shard by shard.

    The same call goes on where an earlier one was stopped, even by kill -9, and returns at once
    where all is done. What an output holds is described in :mod:`salip_ray.pipeline.resume` and
    :data:`salip_ray.rows.LABEL_SCHEMA`. Uses the Ray that this process is connected to, else the
    one at ``RAY_ADDRESS``, else starts one on this machine for the time of the job.

    Args:
        input: folder, prefix, glob, image or manifest (CSV or Parquet with a column ``uri``); local
            or of any fsspec scheme.
        output: an empty or new location, or one that this very job began.
        config: from :func:`salip_ray.load_config`.
        references: reference masks for the mode ``gt_sam``: a folder or an ``index.csv``.
        manifest: keep the manifest in this file, not in the output: it alone has the names of
            images where ``privacy.hash_uris`` is on.
        quiet: show no progress.
        extend: where the input has gained images since the output was begun, label what is new
            into new shards; without it a grown input is refused.

    Raises:
        ConfigError: ``gt_sam`` is a mode but there are no references.
        InputError: no image is found.
        WeightsError: a checkpoint is missing or altered.
        OutputError: the output is not ours, (ResumeError) was begun by another job, or (LeaseError)
            is being written by another driver.
        ResourceError: the pools do not fit.
        JobError: the job was stopped or broke down, or ended with too many error rows.
    """
    began = time.monotonic()
    talker = Talker(quiet=quiet)
    known = open_references(references, config)
    plan = _plan(input, config, talker)
    where = None if known is None or references is None else public_uri(references)
    weights = identify(config)
    fingerprint = make_fingerprint(config.recipe(), weights, plan, where)
    kept = {} if manifest is None else {MANIFEST: manifest}
    store = Store(output, config.storage.output, kept=kept)
    read_run(store)  # what is not ours is refused before anything is written
    with held(store) as lease:
        begun = begin(store, plan, fingerprint, extend=extend)
        plan = begun.plan
        for note in begun.notes:
            talker.say(f"note: {note}")
        todo = plan.todo(begun.committed)
        if todo.num_rows:
            if done := len(begun.committed):
                talker.say(f"going on: {done:,} of {plan.n_shards:,} shards are committed already")
            # Pinned, a worker that fetches for itself refuses what is not the driver's file.
            run_on_ray(todo, plan, pin(config, weights), store, known, talker, lease)
            new = int(pc.sum(pc.greater_equal(todo["seq"], 0)).as_py())
            summary = summarise(
                store, plan, wall_seconds=time.monotonic() - began, images_in_run=new
            )
            write_summary(store, summary)
        else:
            n_images, n_shards = plan.n_images, plan.n_shards
            talker.say(f"{store} is complete: {n_images:,} images in {n_shards:,} shards")
            summary = summarise(store, plan)
    return conclude(summary, config, talker)


def conclude(summary: Summary, config: Config, talker: Talker) -> Summary:
    """Show what came of a job.

    Raises:
        JobError: too many rows are errors.
    """
    if not talker.console.quiet:
        talker.console.print(summary_table(summary))
    _require_few_errors(summary, config.run.max_error_share)
    return summary


def open_references(references: str | None, config: Config) -> References | None:
    """The reference masks of a job, where one of its modes needs them."""
    if "gt_sam" not in config.run.modes:
        return None
    if references is None:
        raise ConfigError(
            "run.modes has gt_sam, which needs reference masks: give their folder or index.csv "
            "as references (--reference)"
        )
    return References.open(references, config.storage.input)


def _plan(location: str | os.PathLike[str], config: Config, talker: Talker) -> Plan:
    listing = list_images(location, config.storage.input)
    listing, notes = expand(listing, config)
    for note in notes:
        talker.say(f"note: {note}")
    plan = make_plan(listing, config.run.rows_per_shard)
    left_out = f" (left out: {listing.skipped})" if str(listing.skipped) else ""
    talker.say(f"{plan.n_images:,} images in {plan.n_shards:,} shards{left_out}")
    if plan.duplicates:
        talker.say(
            f"note: {plan.duplicates:,} URIs are named more than once; each is labelled once"
        )
    return plan


def run_on_ray(
    todo: Any,
    plan: Plan,
    config: Config,
    store: Store,
    references: References | None,
    talker: Talker,
    lease: Lease,
    *,
    block: int | None = None,
    keeping: bool = False,
) -> None:
    """Label rows on Ray, and commit them.

    Args:
        todo: :data:`~salip_ray.pipeline.plan.TODO_SCHEMA`, aligned to blocks.
        plan: the whole job.
        config: of the job.
        store: the output.
        references: reference masks, where a mode needs them.
        talker: shows the progress.
        lease: of the output.
        block: rows that are committed together; a whole shard by default.
        keeping: the rows are some of shards that are committed; the others are kept.
    """
    block = block or plan.rows_per_shard
    stages = list(stages_of(config))

    def needed(machine: Machine) -> float:
        pools = plan_pools(config.pools, stages, machine)
        return cpus_needed(pools, config.pools.fetch_cpus)

    run = uuid.uuid4().hex[:12]
    talker.say(f"starting Ray and the models (run {run})")
    with ray_session(needed) as machine:
        machine = wait_for_nodes(config.pools, stages, machine, talker.say)
        pools = plan_pools(config.pools, stages, machine)
        require_fit(pools, config.pools.fetch_cpus, machine)
        record_devices(store, _devices(machine))
        monitor = start_monitor(["fetch", *stages], run)
        reporter = Reporter(monitor, run)
        sink = ShardSink(
            store,
            sizes=plan.sizes,
            classes={spec.label: spec.class_id for spec in config.task.classes},
            reporter=reporter,
            keeping=keeping,
        )

        def snapshot() -> Snapshot:
            return ray.get(monitor.snapshot.remote(), timeout=5)  # type: ignore[no-any-return]

        shards = -(-todo.num_rows // block)
        began = time.monotonic()

        def progress() -> dict[str, Any]:
            now = snapshot()
            seconds = round(time.monotonic() - began, 1)
            return {"images": todo.num_rows, "rows": now.rows, "seconds": seconds}

        lease.progress = progress
        lease.on_lost = lambda: ray.get(monitor.close.remote(), timeout=10)
        try:
            with (
                streaming(),
                talker.watching(snapshot, ["fetch", *stages], todo.num_rows, shards),
                graceful_stop(lambda: _drain(monitor, snapshot), talker.say),
            ):
                images = decoded(todo, config, pools, references, reporter)
                # Rows are light again: gathered into exactly the shards of the manifest.
                labels = cascaded(images, config, pools, reporter).repartition(
                    target_num_rows_per_block=block, strict=True
                )
                labels.write_datasink(sink, ray_remote_args={"num_cpus": 0.5})
        except Stopped as stopped:
            raise JobError(f"stopped by {stopped}: {_how_far(store, plan)}") from None
        except (RayError, RuntimeError) as problem:
            if isinstance(problem, SalipError):
                raise
            lease.require()
            raise JobError(f"{_first_cause(problem)}; {_how_far(store, plan)}") from problem
        finally:
            lease.progress = None
            shutil.rmtree(notes_folder(reporter.notes), ignore_errors=True)
    if missing := set(todo["shard"].to_pylist()) - committed_shards(store):
        raise JobError(
            f"{len(missing)} of {plan.n_shards} shards are not in {store} (the first is "
            f"{min(missing)}): every node must see the same output location"
        )


def _drain(monitor: Any, snapshot: Callable[[], Snapshot]) -> None:
    """Close the gate and wait until nothing is being committed."""
    ray.get(monitor.close.remote(), timeout=10)
    deadline = time.monotonic() + _DRAIN_SECONDS
    while snapshot().committing and time.monotonic() < deadline:
        time.sleep(0.1)


def _how_far(store: Store, plan: Plan) -> str:
    done = len(committed_shards(store))
    return (
        f"{done:,} of {plan.n_shards:,} shards are committed; the same command goes on from there"
    )


def _first_cause(problem: BaseException) -> str:
    """The error at the bottom of Ray's wrapping, in one line."""
    cause = problem
    while (deeper := getattr(cause, "cause", None) or cause.__cause__) is not None:
        cause = deeper
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"the job broke down: {type(cause).__name__}: {lines[-1] if lines else 'no message'}"


def _devices(machine: Machine) -> dict[str, Any]:
    resources = ray.cluster_resources()
    kinds = sorted(
        name.removeprefix("accelerator_type:")
        for name in resources
        if name.startswith("accelerator_type:")
    )
    return {"cpus": machine.cpus, "gpus": machine.gpus, "accelerators": kinds}


def _require_few_errors(summary: Summary, limit: float) -> None:
    if summary.error_share > limit:
        raise JobError(
            f"{summary.status['error']:,} of {summary.images:,} images "
            f"({summary.error_share:.1%}) are error rows, above run.max_error_share = {limit:g}: "
            f"the column error in {summary.output}/shards says why"
        )
