"""One Ray session for several jobs: starting Ray takes as long as a few images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from salip_ray.cluster.resources import Machine, cpus_needed, plan_pools
from salip_ray.cluster.session import ray_session
from salip_ray.config import Config
from salip_ray.pipeline.stages import stages_of


def shared_session(configs: Iterable[Config]) -> AbstractContextManager[Machine]:
    """Return a Ray session in which each of the jobs fits."""
    jobs = list(configs)

    def needed(machine: Machine) -> float:
        return max(
            cpus_needed(
                plan_pools(config.pools, list(stages_of(config)), machine),
                config.pools.fetch_cpus,
            )
            for config in jobs
        )

    return ray_session(needed)
