"""Plan the actor pools of a job, and check that they fit.

Logical CPUs and GPUs only count in Ray's scheduling. Actors that ask for more than there is never
start, and Ray reports that after half an hour. So the arithmetic is done here, before a job starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from salip_ray.config import Config, PoolConfig, PoolsConfig
from salip_ray.errors import ResourceError

#: CPUs of a task that chooses labels of volumes and writes a shard; it mostly waits for the store.
COMMIT_CPUS = 0.1
RECUT_CPUS = 0.1  #: of a task that cuts blocks into shards; it only moves light rows
#: CPUs of an actor with (a part of) a GPU. Ray Data lets a pool grow on a new node only if its
#: share of all CPUs has room for one more actor, and a small node has few CPUs per GPU.
_CPUS_WITH_GPU = 0.5
_LEAST_CPUS = 0.01
_EPSILON = 1e-6


@dataclass(frozen=True)
class Machine:
    """The resources of a cluster.

    Attributes:
        cpus: Ray's logical CPUs.
        gpus: Ray's logical GPUs.
        cores: real cores of a node.
        nodes: CPUs and GPUs of each node, if known; an actor must fit one node.
    """

    cpus: float
    gpus: float
    cores: int
    nodes: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Pool:
    """The actors of one stage."""

    min_size: int
    max_size: int
    cpus: float
    gpus: float
    threads: int


def plan_pools(
    config: PoolsConfig,
    stages: Sequence[str],
    machine: Machine,
    *,
    images: int | None = None,
    other_cpus: float = 0.0,
) -> dict[str, Pool]:
    """Plan the pools, with defaults for what the configuration leaves open.

    With GPUs, each stage gets one actor per GPU, and the stages share the GPUs evenly. Without
    GPUs, the first stage gets one actor per core, which runs the other stages, too; if stages are
    separate, the others get one actor per eight cores. Actors on CPUs have one thread: that wastes
    no time on synchronisation, and sums are the same to the last bit for any number of actors. An
    actor asks for one logical CPU, for half a CPU if it has a GPU, or for less if that would not
    fit. There are no more actors than images, unless the configuration sizes the pool: an actor
    takes seconds of CPU to import torch and load its models.

    Args:
        config: the section ``pools``.
        stages: the stages of the job, in order.
        machine: the resources.
        images: how many the job has, if known.
        other_cpus: logical CPUs that other operators of the same dataset need.

    Returns:
        The pools by stage. A stage without a pool shares the actors of the stage before it.
    """
    if _is_fused(config, machine):
        stages = stages[:1]
    wanted: dict[str, PoolConfig] = {stage: getattr(config, stage) for stage in stages}
    sizes = {
        stage: _sizes(pool, machine, first=stage == stages[0]) for stage, pool in wanted.items()
    }
    actors = sum(least for least, _ in sizes.values())  # the threads depend on the machine alone
    if images is not None:
        sizes = {
            stage: sizes[stage] if _is_sized(pool) else _at_most(sizes[stage], images)
            for stage, pool in wanted.items()
        }
    free = machine.cpus - cpus_needed({}, config.fetch_cpus, other_cpus)
    open_cpus = [stage for stage, pool in wanted.items() if "cpus" not in pool.model_fields_set]
    fixed = sum(wanted[stage].cpus * sizes[stage][0] for stage in stages if stage not in open_cpus)
    open_actors = sum(sizes[stage][0] for stage in open_cpus)
    most = _CPUS_WITH_GPU if machine.gpus else 1.0
    share = min(most, (free - fixed) / open_actors) if open_actors else most
    # Rounded down: Ray counts in ten-thousandths.
    share = max(_LEAST_CPUS, int(share * 100) / 100)
    gpus_each = int(100 / len(stages)) / 100 if machine.gpus else 0.0
    return {
        stage: Pool(
            min_size=sizes[stage][0],
            max_size=sizes[stage][1],
            cpus=share if stage in open_cpus else pool.cpus,
            gpus=gpus_each if pool.gpus is None else pool.gpus,
            threads=pool.threads or (max(1, machine.cores // actors) if machine.gpus else 1),
        )
        for stage, pool in wanted.items()
    }


def pin_precision(config: Config, pools: Mapping[str, Pool]) -> Config:
    """Return the configuration with ``run.precision: auto`` resolved for these pools.

    Every worker then uses the same precision, also one that starts on another kind of machine.
    """
    if config.run.precision != "auto":
        return config
    on_gpu = any(pool.gpus for pool in pools.values())
    if config.run.device != "auto":
        on_gpu = config.run.device == "cuda"
    run = config.run.model_copy(update={"precision": "fast" if on_gpu else "exact"})
    return config.model_copy(update={"run": run})


def _is_fused(config: PoolsConfig, machine: Machine) -> bool:
    if config.fused == "auto":
        return not machine.gpus and not config.own
    return config.fused


def _is_sized(pool: PoolConfig) -> bool:
    return any(size is not None for size in (pool.size, pool.min_size, pool.max_size))


def _at_most(sizes: tuple[int, int], images: int) -> tuple[int, int]:
    least, most = (max(1, min(size, images)) for size in sizes)
    return least, most


def _sizes(pool: PoolConfig, machine: Machine, *, first: bool) -> tuple[int, int]:
    if pool.size is not None:
        return pool.size, pool.size
    if pool.min_size is not None or pool.max_size is not None:
        least = pool.min_size or 1
        return least, max(least, pool.max_size or least)
    if machine.gpus:
        size = max(1, int(machine.gpus))
    else:
        size = machine.cores if first else max(1, machine.cores // 8)
    return size, size


def cpus_needed(pools: Mapping[str, Pool], fetch_cpus: float, other_cpus: float = 0.0) -> float:
    """Return the logical CPUs with which all actors, a fetch, a re-cut and a commit run at once.

    With less, Ray Data would run the commits, which come last, only when all else is done, and a
    job that is killed would lose everything.
    """
    actors = sum(pool.min_size * pool.cpus for pool in pools.values())
    return actors + fetch_cpus + RECUT_CPUS + COMMIT_CPUS + other_cpus


def shortfall(
    pools: Mapping[str, Pool], fetch_cpus: float, machine: Machine, other_cpus: float = 0.0
) -> str | None:
    """Return what the smallest pools lack, with the arithmetic, or None if they fit."""
    cpus = cpus_needed(pools, fetch_cpus, other_cpus)
    gpus = sum(pool.min_size * pool.gpus for pool in pools.values())
    for kind, need, have in (("CPUs", cpus, machine.cpus), ("GPUs", gpus, machine.gpus)):
        if need > have + _EPSILON:
            unit = kind.lower()
            terms = [
                f"{stage} {pool.min_size} x {getattr(pool, unit):g}"
                for stage, pool in pools.items()
            ]
            if kind == "CPUs":
                terms += [f"fetch {fetch_cpus:g}", f"re-cut {RECUT_CPUS:g}"]
                terms += [f"commit {COMMIT_CPUS:g}"]
                terms += [f"other operators {other_cpus:g}"] * bool(other_cpus)
            return (
                f"the pools need {need:g} {kind} ({' + '.join(terms)}), but Ray has {have:g}: "
                f"lower pools.*.size or pools.*.{unit}, or add nodes"
            )
    for stage, pool in pools.items():
        if machine.nodes and not any(
            pool.cpus <= cpus + _EPSILON and pool.gpus <= gpus + _EPSILON
            for cpus, gpus in machine.nodes
        ):
            sizes = sorted(set(machine.nodes), reverse=True)
            shown = ", ".join(f"{cpus:g} CPUs + {gpus:g} GPUs" for cpus, gpus in sizes[:4])
            return (
                f"one actor of {stage} needs {pool.cpus:g} CPUs and {pool.gpus:g} GPUs of one "
                f"node, but the nodes have {shown}: lower pools.{stage}.cpus or "
                f"pools.{stage}.gpus, or add larger nodes"
            )
    return None


def require_fit(
    pools: Mapping[str, Pool], fetch_cpus: float, machine: Machine, other_cpus: float = 0.0
) -> None:
    """Raise ResourceError, with the arithmetic, if the smallest pools do not fit."""
    if lacking := shortfall(pools, fetch_cpus, machine, other_cpus):
        raise ResourceError(lacking)
