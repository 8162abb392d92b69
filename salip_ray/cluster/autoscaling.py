"""Waiting for nodes that are still to come.

A cluster that grows with its jobs begins with next to nothing, and Ray Data would plan for what it
sees. So the job asks the autoscaler for what its smallest pools need and waits until it is there.
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
_SAY_SECONDS = 60.0


def wait_for_nodes(
    config: PoolsConfig,
    stages: Sequence[str],
    machine: Machine,
    report: Callable[[str], None],
    *,
    look: Callable[[], Machine] = current_machine,
) -> Machine:
    """Wait until the pools fit, for at most ``pools.wait.seconds``.

    Args:
        config: the pools, and what to wait for.
        stages: the job's.
        machine: what there is now.
        report: called once a minute with what is missing.
        look: what there is by then.

    Returns:
        What there is at last; where nothing had to be awaited, ``machine``.

    Raises:
        ResourceError: the time is over; the message has the arithmetic.
    """
    began = time.monotonic()
    asked, said_at = False, -_SAY_SECONDS
    while True:
        pools = plan_pools(config, stages, machine)
        lacking = shortfall(pools, config.fetch_cpus, machine) or missing(config.wait, machine)
        waited = time.monotonic() - began
        if lacking is None or waited >= config.wait.seconds:
            break
        if waited - said_at >= _SAY_SECONDS:
            report(f"waiting for nodes ({waited:.0f} of {config.wait.seconds:g} s): {lacking}")
            said_at = waited
        if not asked:
            _ask(bundles(pools, config))
            asked = True
        time.sleep(min(_POLL_SECONDS, config.wait.seconds - waited))
        machine = look()
    if asked:
        _ask([])  # what the pools want from here on, Ray Data asks for
    if lacking is not None:
        after = f" after {config.wait.seconds:g} s of waiting" if config.wait.seconds else ""
        raise ResourceError(f"{lacking}{after}")
    return machine


def missing(wait: WaitConfig, machine: Machine) -> str | None:
    """What the cluster lacks of the nodes, CPUs and GPUs that the configuration names."""
    for name, need, have in (
        ("nodes", wait.nodes, len(machine.nodes)),
        ("cpus", wait.cpus, machine.cpus),
        ("gpus", wait.gpus, machine.gpus),
    ):
        if need is not None and have < need:
            return f"pools.wait.{name} is {need:g}, but Ray has {have:g}"
    return None


def bundles(pools: Mapping[str, Pool], config: PoolsConfig) -> list[dict[str, float]]:
    """What to ask the autoscaler for: each actor of the smallest pools, and room for the tasks."""
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


def _ask(wanted: list[dict[str, float]]) -> None:
    from ray.autoscaler import sdk

    # A cluster of fixed size has nobody to ask; its nodes may come all the same.
    with contextlib.suppress(Exception):
        sdk.request_resources(bundles=wanted)
