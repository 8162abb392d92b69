"""Run the rows of a job on Ray: start it, watch it, stop it, and explain its failures."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayError

from salip_ray.cluster.autoscaling import wait_for_pools
from salip_ray.cluster.ray_private import lost_workers, without_retry_advice
from salip_ray.cluster.resources import Machine, cpus_needed, pin_precision, plan_pools
from salip_ray.cluster.session import ray_session
from salip_ray.errors import JobError, LeaseError, SalipError
from salip_ray.output.commit import committed_shards
from salip_ray.output.manifest import count_images
from salip_ray.output.run_record import record_devices, record_precision
from salip_ray.pipeline.commit_gate import CommitGate, GracefulStop, Stopped, StoppingError
from salip_ray.pipeline.dataflow import label_and_commit
from salip_ray.pipeline.monitoring.losses import LossWatch
from salip_ray.pipeline.monitoring.monitor import Snapshot, StageReporter, start_monitor
from salip_ray.pipeline.monitoring.progress import Workload
from salip_ray.pipeline.sink import ShardSink
from salip_ray.pipeline.stages import stages_of, stages_with_models
from salip_ray.pipeline.volumes import choose_labels
from salip_ray.pipeline.workers.deaths import notes_folder
from salip_ray.pipeline.workers.model_check import require_models
from salip_ray.pipeline.workers.temporary import private_folder, remove_folder
from salip_ray.wording import counted

if TYPE_CHECKING:
    from salip_ray.pipeline.job import Job

_SNAPSHOT_SECONDS = 5  # the longest wait for an answer of the monitor


def run_on_ray(
    job: Job, todo: pa.Table, *, rows_per_block: int | None = None, merge: bool = False
) -> None:
    """Label rows on Ray, and commit them.

    Args:
        job: the job.
        todo: :data:`~salip_ray.output.manifest.TODO_SCHEMA`, aligned to blocks.
        rows_per_block: rows that are committed together; by default a whole shard.
        merge: the rows replace some of the rows of shards that are committed already.

    Raises:
        ResourceError: the actor pools do not fit.
        ResumeError: shards were committed with another precision.
        LeaseError: another driver has taken the output over.
        JobError: the job was stopped or failed, or shards are not where they were written.
    """
    run = uuid.uuid4().hex[:12]
    stages, pooled = list(stages_of(job.config)), stages_with_models(job.config)
    pools_config, images = job.config.pools, count_images(todo)

    def cpus_for(machine: Machine) -> float:
        planned = plan_pools(pools_config, pooled, machine, images=images)
        return cpus_needed(planned, pools_config.fetch_cpus)

    private_folder()  # refuse a planted folder before Ray starts
    job.progress.report(f"starting Ray and the models (run {run})")
    with ray_session(cpus_for) as available:
        machine, pools = wait_for_pools(
            pools_config, pooled, available, job.progress.report, images=images
        )
        job = replace(job, config=pin_precision(job.config, pools))
        require_models(job.config, pools)
        record_precision(job.store, job.config.run.precision)
        record_devices(job.store, _devices(machine))
        monitor = start_monitor(["fetch", *stages], run)
        reporter, gate = StageReporter(monitor, run), CommitGate(monitor, run)
        sink = ShardSink(
            job.store,
            sizes=job.manifest.sizes,
            classes={spec.label: spec.class_id for spec in job.config.task.classes},
            owner=job.lease.owner,
            gate=gate,
            finish=partial(choose_labels, config=job.config),
            merge=merge,
            version=job.version,
        )
        work = Workload(
            stages=["fetch", *stages],
            images=images,
            shards=len(pc.unique(todo["shard"])),
        )
        started = time.monotonic()

        def snapshot() -> Snapshot:
            return ray.get(  # type: ignore[no-any-return]
                monitor.snapshot.remote(), timeout=_SNAPSHOT_SECONDS
            )

        def progress_of_lease() -> dict[str, Any]:
            seconds = round(time.monotonic() - started, 1)
            return {"images": work.images, "rows": snapshot().rows, "seconds": seconds}

        job.lease.progress = progress_of_lease
        job.lease.on_lost = gate.close
        stop = GracefulStop(gate.drain, job.progress.report)
        losses = LossWatch(lost_workers, lambda: snapshot().processed, stop.request)
        try:
            job.lease.require_owner()  # it may have been lost while Ray and the models started
            with job.progress.watch(work, snapshot), stop, losses.running():
                label_and_commit(
                    job, todo, pools, reporter, sink, rows_per_block or job.manifest.rows_per_shard
                )
        except Stopped as stopped:
            raise JobError(f"{_why(stop, stopped)}: {_describe_progress(job)}") from None
        except (RayError, RuntimeError) as problem:
            # The error of a task has both classes; its text is the whole traceback of the worker.
            if isinstance(problem, SalipError) and not isinstance(problem, RayError):
                raise
            job.lease.require()
            for cause in _causes(problem):
                if isinstance(cause, LeaseError) and not isinstance(cause, RayError):
                    raise LeaseError(str(cause)) from None
            if stop.signal is not None and _is_stopping(problem):
                why = _why(stop, stop.signal.name)
                raise JobError(f"{why}: {_describe_progress(job)}") from None
            raise JobError(f"{_describe_cause(problem)}; {_describe_progress(job)}") from problem
        finally:
            job.lease.progress = job.lease.on_lost = None
            monitor.end.remote()
            remove_folder(notes_folder(reporter.notes))
    _require_committed(job, todo)


def _require_committed(job: Job, todo: pa.Table) -> None:
    if missing := set(todo["shard"].to_pylist()) - committed_shards(job.store).keys():
        raise JobError(
            f"{len(missing):,} of {counted(job.manifest.n_shards, 'shard')} not found in "
            f"{job.store} after they were written (the first is {min(missing)}): every node must "
            "see the same output location"
        )


def _describe_progress(job: Job) -> str:
    try:
        done = len(committed_shards(job.store))
    except SalipError as problem:  # must not hide what ended the job
        return f"progress unknown ({problem}). Run the same command again to resume"
    shards = counted(job.manifest.n_shards, "shard")
    again = "" if done == job.manifest.n_shards else "; the images of the others start again"
    return f"{done:,} of {shards} committed{again}. Run the same command again to resume"


def _why(stop: GracefulStop, signal: object) -> str:
    return f"the job was ended: {stop.reason}" if stop.reason else f"stopped by {signal}"


def _is_stopping(problem: BaseException) -> bool:
    """Return True if the job failed because the commit gate was closed."""
    return any(isinstance(cause, StoppingError) for cause in _causes(problem))


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that Ray wrapped in it, the outermost first."""
    cause: BaseException | None = problem
    while cause is not None:
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__


def _describe_cause(problem: BaseException) -> str:
    """Return the error at the bottom of Ray's wrapping, in one line."""
    outer, *inner = _causes(problem)
    # Ray ends some chains with an exception without a message.
    cause = [outer, *itertools.takewhile(str, inner)][-1]
    message = without_retry_advice(str(cause))
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return f"the job failed: {type(cause).__name__}: {lines[-1] if lines else 'no message'}"


def _devices(machine: Machine) -> dict[str, Any]:
    prefix = "accelerator_type:"
    kinds = sorted(
        name.removeprefix(prefix) for name in ray.cluster_resources() if name.startswith(prefix)
    )
    return {"cpus": machine.cpus, "gpus": machine.gpus, "accelerators": kinds}
