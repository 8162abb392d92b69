"""Wait for nodes that an autoscaler still has to start.

A cluster that grows with its jobs starts small, and Ray Data would plan for what it sees. So the
job requests what its smallest pools need from the autoscaler, and waits until it is there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from salip_ray.cluster.resources import Machine, Pool, cpus_needed, plan_pools, shortfall
from salip_ray.cluster.session import current_machine
from salip_ray.config import PoolsConfig, WaitConfig
from salip_ray.errors import ResourceError

_POLL_SECONDS = 2.0
_REPORT_SECONDS = 60.0


def wait_for_pools(
    config: PoolsConfig,
    stages: Sequence[str],
    machine: Machine,
    report: Callable[[str], None],
    *,
    images: int | None = None,
    look: Callable[[], Machine] = current_machine,
) -> tuple[Machine, dict[str, Pool]]:
    """Plan the pools of a job, and wait until they fit, for at most ``pools.wait.seconds``.

    Args:
        config: the pools, and what to wait for.
        stages: the stages of the job.
        machine: the resources that exist now.
        report: called once a minute with a line about what is missing.
        images: how many the job has, if known.
        look: return the resources that exist at a later time.

    Returns:
        The resources at the end of the wait (``machine`` if there was none), and the pools by
        stage.

    Raises:
        ResourceError: the pools still do not fit; the message has the arithmetic.
    """
    started = time.monotonic()
    requested, reported_at = False, -_REPORT_SECONDS
    while True:
        pools = plan_pools(config, stages, machine, images=images)
        lacking = shortfall(pools, config.fetch_cpus, machine) or missing(config.wait, machine)
        waited = time.monotonic() - started
        if lacking is None or waited >= config.wait.seconds:
            break
        if waited - reported_at >= _REPORT_SECONDS:
            report(f"waiting for nodes ({waited:.0f} of {config.wait.seconds:g} s): {lacking}")
            reported_at = waited
        if not requested:
            _request(bundles(pools, config))
            requested = True
        time.sleep(min(_POLL_SECONDS, config.wait.seconds - waited))
        machine = look()
    if requested:
        _request([])  # from here on Ray Data requests what the pools need
    if lacking is not None:
        after = f" after {config.wait.seconds:g} s of waiting" if config.wait.seconds else ""
        raise ResourceError(f"{lacking}{after}")
    return machine, pools


def missing(wait: WaitConfig, machine: Machine) -> str | None:
    """Return what the cluster lacks of ``pools.wait``, or None."""
    for name, need, have in (
        ("nodes", wait.nodes, len(machine.nodes)),
        ("cpus", wait.cpus, machine.cpus),
        ("gpus", wait.gpus, machine.gpus),
    ):
        if need is not None and have < need:
            return f"pools.wait.{name} is {need:g}, but Ray has {have:g}"
    return None


def bundles(pools: Mapping[str, Pool], config: PoolsConfig) -> list[dict[str, float]]:
    """Return the request to the autoscaler: the actors of the smallest pools, and the tasks."""
    actors = [
        {"CPU": pool.cpus, **({"GPU": pool.gpus} if pool.gpus else {})}
        for pool in pools.values()
        for _ in range(pool.min_size)
    ]
    tasks = cpus_needed({}, config.fetch_cpus)
    more_gpus = (config.wait.gpus or 0.0) - sum(bundle.get("GPU", 0.0) for bundle in actors)
    extra = [{"GPU": 1.0}] * max(0, round(more_gpus))
    more_cpus = (config.wait.cpus or 0.0) - sum(bundle["CPU"] for bundle in actors) - tasks
    return [*actors, {"CPU": tasks}, *extra, *([{"CPU": 1.0}] * max(0, round(more_cpus)))]


def _request(wanted: list[dict[str, float]]) -> None:
    from ray.autoscaler import sdk

    # A cluster of fixed size has no autoscaler; its nodes may still be starting.
    with contextlib.suppress(Exception):
        sdk.request_resources(bundles=wanted)
