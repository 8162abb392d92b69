"""The Ray part of a job: rows in, committed shards out, watched and stopped with care."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayError

from salip_ray.cluster.autoscaling import wait_for_nodes
from salip_ray.cluster.resources import (
    COMMIT_CPUS,
    Machine,
    cpus_needed,
    pin_precision,
    plan_pools,
    require_fit,
)
from salip_ray.cluster.session import ray_session
from salip_ray.config import Config
from salip_ray.errors import JobError, LeaseError, SalipError
from salip_ray.output.job_record import committed_shards, record_devices, record_precision
from salip_ray.output.lease import Lease
from salip_ray.output.manifest import Manifest
from salip_ray.output.store import Store
from salip_ray.pipeline.actors import stages_of
from salip_ray.pipeline.commit_gate import GracefulStop, Stopped
from salip_ray.pipeline.dataflow import cascaded, decoded, gathered, streaming
from salip_ray.pipeline.faults import notes_folder
from salip_ray.pipeline.monitor import Snapshot, StageReporter, start_monitor
from salip_ray.pipeline.progress import ProgressReporter
from salip_ray.pipeline.sink import DRAIN_SECONDS, ShardSink, StoppingError
from salip_ray.pipeline.temporary import private_folder, remove_folder
from salip_ray.sources.references import References

_RAYS_ADVICE = "Failed to apply UDF transform"  # and how to have it tried again


def run_on_ray(
    todo: pa.Table,
    plan: Manifest,
    config: Config,
    store: Store,
    references: References | None,
    progress: ProgressReporter,
    lease: Lease,
    *,
    block: int | None = None,
    keeping: bool = False,
) -> None:
    """Label rows on Ray, and commit them.

    Args:
        todo: :data:`~salip_ray.output.manifest.TODO_SCHEMA`, aligned to blocks.
        plan: the whole job.
        config: of the job.
        store: the output.
        references: reference masks, where a mode needs them.
        progress: shows the progress.
        lease: of the output.
        block: rows that are committed together; a whole shard by default.
        keeping: the rows are some of shards that are committed; the others are kept.

    Raises:
        ResourceError: the pools do not fit.
        ResumeError: shards were committed with another precision.
        LeaseError: the output was taken over by another driver.
        JobError: the job was stopped or broke down, or shards are not where they were written.
    """
    block = block or plan.rows_per_shard
    stages = list(stages_of(config))

    def needed(machine: Machine) -> float:
        pools = plan_pools(config.pools, stages, machine)
        return cpus_needed(pools, config.pools.fetch_cpus)

    run = uuid.uuid4().hex[:12]
    private_folder()  # a planted one is refused before Ray starts
    progress.report(f"starting Ray and the models (run {run})")
    with ray_session(needed) as machine:
        machine = wait_for_nodes(config.pools, stages, machine, progress.report)
        pools = plan_pools(config.pools, stages, machine)
        require_fit(pools, config.pools.fetch_cpus, machine)
        config = pin_precision(config, pools)
        record_precision(store, config.run.precision)
        record_devices(store, _devices(machine))
        monitor = start_monitor(["fetch", *stages], run)
        reporter = StageReporter(monitor, run)

        def snapshot() -> Snapshot:
            return ray.get(monitor.snapshot.remote(), timeout=5)  # type: ignore[no-any-return]

        sink = ShardSink(
            store,
            sizes=plan.sizes,
            classes={spec.label: spec.class_id for spec in config.task.classes},
            owner=lease.owner,
            reporter=reporter,
            committing=lambda: snapshot().committing,
            keeping=keeping,
        )
        shards = -(-todo.num_rows // block)
        images = int(pc.sum(pc.greater_equal(todo["seq"], 0)).as_py())
        began = time.monotonic()

        def progress_so_far() -> dict[str, Any]:
            now = snapshot()
            seconds = round(time.monotonic() - began, 1)
            return {"images": images, "rows": now.rows, "seconds": seconds}

        lease.progress = progress_so_far
        lease.on_lost = lambda: ray.get(monitor.close.remote(), timeout=10)
        stop = GracefulStop(lambda: _drain(monitor, snapshot), progress.report)
        try:
            lease.require_owner()  # it may have been lost while Ray and the models started
            with (
                streaming(),
                progress.watching(snapshot, ["fetch", *stages], images, shards),
                stop,
            ):
                pictures = decoded(todo, config, pools, references, reporter)
                labels = gathered(cascaded(pictures, config, pools, reporter), block)
                labels.write_datasink(sink, ray_remote_args={"num_cpus": COMMIT_CPUS})
        except Stopped as stopped:
            raise JobError(f"stopped by {stopped}: {_how_far(store, plan)}") from None
        except (RayError, RuntimeError) as problem:
            # A task's error is of its own class, too; its text is the worker's whole traceback.
            if isinstance(problem, SalipError) and not isinstance(problem, RayError):
                raise
            lease.require()
            for cause in _causes(problem):
                if isinstance(cause, LeaseError) and not isinstance(cause, RayError):
                    raise LeaseError(str(cause)) from None
            if stop.signal is not None and _is_stopping(problem):
                raise JobError(f"stopped by {stop.signal.name}: {_how_far(store, plan)}") from None
            raise JobError(f"{_first_cause(problem)}; {_how_far(store, plan)}") from problem
        finally:
            lease.progress = lease.on_lost = None
            remove_folder(notes_folder(reporter.notes))
    if missing := set(todo["shard"].to_pylist()) - committed_shards(store):
        raise JobError(
            f"{len(missing)} of {plan.n_shards} shards are not in {store} (the first is "
            f"{min(missing)}): every node must see the same output location"
        )


def _drain(monitor: Any, snapshot: Callable[[], Snapshot]) -> None:
    """Close the gate and wait until nothing is being committed."""
    ray.get(monitor.close.remote(), timeout=10)
    deadline = time.monotonic() + DRAIN_SECONDS
    while snapshot().committing and time.monotonic() < deadline:
        time.sleep(0.1)


def _how_far(store: Store, plan: Manifest) -> str:
    try:
        done = len(committed_shards(store))
    except SalipError as problem:  # what broke the job is not to be lost over it
        return f"how far it is, is not known ({problem}); the same command goes on from there"
    return (
        f"{done:,} of {plan.n_shards:,} shards are committed; the same command goes on from there"
    )


def _is_stopping(problem: BaseException) -> bool:
    """Whether a task has found the gate of the commits closed."""
    return any(isinstance(cause, StoppingError) for cause in _causes(problem))


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """An error and what Ray has wrapped in it, the outermost first."""
    cause: BaseException | None = problem
    while cause is not None:
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__


def _first_cause(problem: BaseException) -> str:
    """The error at the bottom of Ray's wrapping, in one line."""
    outer, *inner = _causes(problem)
    # Ray ends some chains with an exception that says nothing; the last that speaks is meant.
    cause = [outer, *itertools.takewhile(str, inner)][-1]
    said = str(cause).partition(_RAYS_ADVICE)[0].removesuffix(r"\n")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"the job broke down: {type(cause).__name__}: {lines[-1] if lines else 'no message'}"


def _devices(machine: Machine) -> dict[str, Any]:
    resources = ray.cluster_resources()
    kinds = sorted(
        name.removeprefix("accelerator_type:")
        for name in resources
        if name.startswith("accelerator_type:")
    )
    return {"cpus": machine.cpus, "gpus": machine.gpus, "accelerators": kinds}
