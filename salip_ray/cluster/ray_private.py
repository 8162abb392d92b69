"""Everything that salip_ray uses of Ray beyond its public API, one function for each.

``tests/pipeline/test_ray_private.py`` checks each against the installed Ray.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import services, state
from ray.core.generated import common_pb2, gcs_pb2
from ray.data import ActorPoolStrategy, Dataset
from ray.data._internal.logical.operators import Read

_START_TIMEOUT = "timed out during startup"
_LOOPBACK = "127.0.0.1"
_RETRY_ADVICE = "Failed to apply UDF transform"


def set_cpus_of_last_operator(dataset: Dataset, cpus: float) -> None:
    """Set the logical CPUs of the tasks of a dataset's last operator.

    ``Dataset.repartition`` has no argument for it, and asks for a whole CPU.
    """
    operator: Any = dataset._logical_plan.dag
    operator.ray_remote_args["num_cpus"] = cpus


def cpus_of_operators(dataset: Dataset) -> float:
    """Return the logical CPUs with which every operator of a dataset can make progress.

    Tasks take turns, so the largest counts; actors hold their CPUs, so all of them count. Rows that
    are in the object store already (``from_items``, ``materialize``) need none.
    """
    tasks, actors = 0.0, 0.0
    operators: Any = dataset._logical_plan.dag.post_order_iter()
    for operator in operators:
        if not operator.input_dependencies and not isinstance(operator, Read):
            continue
        cpus = float((getattr(operator, "ray_remote_args", None) or {}).get("num_cpus") or 1)
        compute = getattr(operator, "compute", None)
        if isinstance(compute, ActorPoolStrategy):
            actors += compute.min_size * cpus
        else:
            tasks = max(tasks, cpus)
    return tasks + actors


@contextlib.contextmanager
def on_loopback() -> Iterator[str]:
    """Yield the ``_node_ip_address`` for a ``ray.init`` that listens on loopback only.

    Ray replaces a loopback address by that of the machine, and then listens on all interfaces.
    """
    replace = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield _LOOPBACK
    finally:
        services.resolve_ip_for_localhost = replace


@dataclass(frozen=True)
class LostWorker:
    """A worker process that did not end by itself.

    Attributes:
        out_of_memory: Ray's memory monitor killed it.
        detail: how it ended, in Ray's words; one line.
    """

    out_of_memory: bool
    detail: str


def lost_workers() -> dict[str, LostWorker]:
    """Return the workers of this driver's job that died without being told to, by id."""
    accessor: Any = state.state._connect_and_get_accessor()
    exits: Any = common_pb2
    table: Any = gcs_pb2  # generated: mypy sees no names in it
    job = ray.get_runtime_context().get_job_id()
    lost = {}
    for data in accessor.get_worker_table():
        worker = table.WorkerTableData.FromString(data)
        killed = worker.exit_type == exits.NODE_OUT_OF_MEMORY
        if worker.is_alive or worker.job_id.hex() != job:
            continue
        if killed or worker.exit_type == exits.SYSTEM_ERROR:
            detail = worker.exit_detail.strip().partition(". ")[0].splitlines()[:1]
            lost[worker.worker_address.worker_id.hex()] = LostWorker(killed, "".join(detail))
    return lost


def is_start_timeout(problem: BaseException) -> bool:
    """Return True if ``ray.init`` gave up after its 30 s: it raises a plain Exception."""
    return _START_TIMEOUT in str(problem)


def without_retry_advice(message: str) -> str:
    """Return the message of a failed task without Ray Data's advice on how to retry it."""
    return message.partition(_RETRY_ADVICE)[0].removesuffix(r"\n")
