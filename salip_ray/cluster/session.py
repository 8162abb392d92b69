"""Joining a Ray that runs, or starting one for the time of a job."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import secrets
from collections.abc import Callable, Iterator

import ray
import ray.data  # configures its loggers

from salip_ray.cluster.resources import Machine
from salip_ray.errors import ResourceError

OBJECT_STORE = 2 * 1024**3
_START_ATTEMPTS = 3  # on a machine that is busy with other work Ray's own 30 s may not do
_ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",  # a job on patients' images tells nobody about itself
}


def local_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def ray_session(cpus_for: Callable[[Machine], float]) -> Iterator[Machine]:
    """Yield what there is to run on.

    A Ray that this process is already connected to is used and left alone; else the cluster that
    ``RAY_ADDRESS`` names (as in ``ray job submit``) is joined; else one is started on this machine
    and stopped at the end.

    Args:
        cpus_for: the logical CPUs that a job needs on a machine, for a Ray of our own.
    """
    _hush_ray_data()
    if ray.is_initialized():
        yield current_machine()
        return
    joining = bool(os.environ.get("RAY_ADDRESS"))
    with _environment(own_token=not joining):
        if joining:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            _start_local(cpus_for)
        try:
            yield current_machine()
        finally:
            ray.shutdown()


def _hush_ray_data() -> None:
    """Keep Ray Data's plan and progress out of the terminal; its log file still has them."""
    for handler in logging.getLogger("ray.data").handlers:
        if handler.level >= logging.INFO:
            handler.setLevel(logging.WARNING)


def _start_local(cpus_for: Callable[[Machine], float]) -> None:
    """Start a Ray of our own.

    Raises:
        ResourceError: it did not come up, however often it was tried.
    """
    cores = local_cores()
    needed = cpus_for(Machine(cpus=math.inf, gpus=0, cores=cores))
    for attempt in range(_START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=max(cores, math.ceil(needed)),
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as problem:  # Ray raises a plain Exception where its 30 s are over
            ray.shutdown()
            if attempt + 1 < _START_ATTEMPTS and "timed out during startup" in str(problem):
                continue
            said = " ".join(str(problem).split())
            raise ResourceError(f"Ray could not be started on this machine: {said}") from problem
        return


def current_machine() -> Machine:
    """What the Ray that this process is connected to has."""
    has = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    # On a cluster the nodes' logical CPUs are the best word there is about their cores.
    cores = local_cores()
    if len(nodes) > 1:
        cores = int(max(node["Resources"].get("CPU", 1) for node in nodes))
    sizes = tuple(
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes
    )
    return Machine(cpus=has.get("CPU", 0.0), gpus=has.get("GPU", 0.0), cores=cores, nodes=sizes)


@contextlib.contextmanager
def _environment(*, own_token: bool) -> Iterator[None]:
    """Set what Ray reads from the environment, and put it back.

    A cluster that is joined has a token of its own, where the user or Ray's default path says.
    """
    own = dict(_ENVIRONMENT)
    if own_token and not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        own["RAY_AUTH_TOKEN"] = _token()
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@functools.cache
def _token() -> str:
    """The token of our local sessions; Ray would leave a file with one in the home directory.

    One for the life of this process, as Ray reads it only once.
    """
    return secrets.token_hex(32)
