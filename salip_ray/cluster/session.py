"""Connect to a running Ray, or start one for the time of a job."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator

import ray
import ray.data  # configures its loggers

from salip_ray.cluster.ray_private import is_start_timeout, on_loopback
from salip_ray.cluster.resources import Machine
from salip_ray.errors import ClusterError, ResourceError
from salip_ray.wording import one_line

OBJECT_STORE = 2 * 1024**3
_CONNECT_SECONDS = 10.0
_START_ATTEMPTS = 3  # on a busy machine Ray's own limit of 30 s can be too short
_LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",  # report nothing about a job on patients' images
}


def local_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def ray_session(cpus_for: Callable[[Machine], float]) -> Iterator[Machine]:
    """Yield the resources to run on.

    A Ray that this process is connected to is used and stays connected. Else the cluster that
    ``RAY_ADDRESS`` names (as in ``ray job submit``) is joined. Else a Ray is started on this
    machine, and stopped at the end.

    Args:
        cpus_for: return the logical CPUs that a job needs on a machine, to start a Ray with them.

    Raises:
        ClusterError: the cluster of ``RAY_ADDRESS`` cannot be joined.
        ResourceError: no Ray could be started on this machine.
    """
    _quiet_ray_data()
    if ray.is_initialized():
        yield current_machine()
        return
    address = os.environ.get("RAY_ADDRESS")
    with _environment(own_token=not address):
        with _quiet_driver():
            if address:
                _join(address)
            else:
                start_local(cpus_for)
        try:
            yield current_machine()
        finally:
            ray.shutdown()


def _quiet_ray_data() -> None:
    """Show only Ray Data's errors in the terminal; its log file still has everything."""
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


@contextlib.contextmanager
def _quiet_driver() -> Iterator[None]:
    """Start the C++ part of Ray in this process without its log lines on stderr.

    It reports an error whenever Ray Data starts actors that may restart (ray-project/ray#53727).
    Errors of a job reach this process as exceptions. ``os.putenv`` leaves ``os.environ``, and so
    the processes that Ray starts, unchanged.
    """
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.putenv(_LOG_LEVEL, "fatal")
    try:
        with _without_stderr_line(_LOG_LEVEL):  # Ray reports that it has read the variable
            yield
    finally:
        os.unsetenv(_LOG_LEVEL)


@contextlib.contextmanager
def _without_stderr_line(part: str) -> Iterator[None]:
    """Drop lines with ``part`` from what the process writes to stderr in the context."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if part.encode() not in line:
                    os.write(2, line)


def _join(address: str) -> None:
    """Join a cluster.

    Raises:
        ClusterError: nothing answers at the address, or the token is wrong.
    """
    try:
        _require_listener(address)
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except Exception as problem:  # Ray raises ConnectionError, ValueError, RuntimeError and others
        ray.shutdown()
        message = one_line(problem, 300)
        raise ClusterError(
            f"RAY_ADDRESS {address!r} cannot be joined: {message}. Unset RAY_ADDRESS to use this "
            "machine; for a cluster with a token set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        ) from problem


def _require_listener(address: str) -> None:
    """Raise ConnectionError if nothing listens at an address: Ray itself would wait for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"nothing answers there ({error})") from None


def start_local(cpus_for: Callable[[Machine], float]) -> None:
    """Start a Ray on this machine.

    Args:
        cpus_for: the CPUs that the job needs on a machine; Ray gets no fewer.

    Raises:
        ResourceError: it did not start, in several attempts.
    """
    cores = local_cores()
    needed = cpus_for(Machine(cpus=math.inf, gpus=0, cores=cores))
    for attempt in range(_START_ATTEMPTS):
        try:
            # Only this machine's processes need it; `ray start --head` serves others.
            with on_loopback() as address:
                ray.init(
                    address="local",
                    num_cpus=max(cores, math.ceil(needed)),
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address=address,
                )
        except Exception as problem:
            ray.shutdown()
            if attempt + 1 < _START_ATTEMPTS and is_start_timeout(problem):
                continue
            message = one_line(problem)
            raise ResourceError(f"Ray could not be started on this machine: {message}") from problem
        return


def current_machine() -> Machine:
    """Return the resources of the Ray that this process is connected to."""
    resources = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    # On a cluster the logical CPUs of the nodes are the best estimate of their cores.
    cores = local_cores()
    if len(nodes) > 1:
        cores = int(max(node["Resources"].get("CPU", 1) for node in nodes))
    sizes = tuple(
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes
    )
    return Machine(
        cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0), cores=cores, nodes=sizes
    )


@contextlib.contextmanager
def _environment(*, own_token: bool) -> Iterator[None]:
    """Set the environment variables that Ray reads, and restore them.

    Args:
        own_token: use a token of this process. A cluster that is joined has its own, at the path
            that the user or Ray's default names.
    """
    added = dict(_ENVIRONMENT)
    if own_token and not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        added["RAY_AUTH_TOKEN"] = _token()
    added = {name: value for name, value in added.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@functools.cache
def _token() -> str:
    """Return the token of local sessions, so that Ray writes none to the home directory.

    It is the same for the life of this process, as Ray reads it only once.
    """
    return secrets.token_hex(32)
