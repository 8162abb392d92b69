"""A Ray cluster of separate processes, as on real machines: a head with its job server, workers.

It has a separate set of ports, temporary folder and token. It stops the processes that it started,
and never calls ``ray stop``, because other Ray clusters may run on the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import BIN

_STARTING, _ATTEMPTS = 300, 4  # seconds; the machine may be busy
_STOPPING, _COMMAND = 120, 1200  # seconds
_OBJECT_STORE = 1_000_000_000


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class RayCluster:
    """A head and the nodes that are added; the context manager stops and removes everything."""

    def __init__(self, *, cpus: int, resources: Mapping[str, float] | None = None) -> None:
        from ray.util import get_node_ip_address

        # Not 127.0.0.1: drivers on this machine look for the head at the machine's address.
        self.ip = get_node_ip_address()
        # Not in pytest's folder: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="salip-"))
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32))
        self.gcs, self.dashboard = free_ports(2)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "PYTHONUNBUFFERED": "1",
            "RAY_metrics_report_interval_ms": "1000",
        }
        self.metrics_ports: list[int] = []
        self._nodes: list[subprocess.Popen[bytes]] = []
        try:
            self.head = self._start(
                [
                    *("--head", f"--port={self.gcs}", f"--temp-dir={self.folder / 'ray'}"),
                    *("--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}"),
                ],
                cpus=cpus,
                resources=resources,
            )
            self._wait_for_job_server()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Return the address of the job server, for ``--address``."""
        return f"http://127.0.0.1:{self.dashboard}"

    @property
    def gcs_address(self) -> str:
        """Return the address of the cluster, for ``RAY_ADDRESS``."""
        return f"{self.ip}:{self.gcs}"

    def get(self, url: str) -> str:
        """Return the answer of a URL of the cluster, asked with its token."""
        token = (self.folder / "token").read_text()
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def metrics(self) -> str:
        """Return what Prometheus would read from the nodes that answer."""
        pages = []
        for port in self.metrics_ports:
            with contextlib.suppress(OSError):
                pages.append(self.get(f"http://{self.ip}:{port}/metrics"))
        return "\n".join(pages)

    def add_node(
        self, *, cpus: int, gpus: int = 0, resources: Mapping[str, float] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker node in new processes, which joins the head."""
        return self._start(
            [f"--address={self.gcs_address}"], cpus=cpus, gpus=gpus, resources=resources
        )

    def lose(self, node: subprocess.Popen[bytes]) -> None:
        """Kill every process of a node at once, as a spot market does."""
        _kill(node)
        self._nodes.remove(node)

    def run(self, *command: str | os.PathLike[str], **more: object) -> subprocess.CompletedProcess:
        """Run a command in the cluster's environment, and capture its output as text."""
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=_COMMAND, **more
        )

    def close(self) -> None:
        """Stop every process, and remove the folder."""
        for node in reversed(self._nodes):
            _kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(
        self,
        arguments: list[str],
        *,
        cpus: int,
        gpus: int = 0,
        resources: Mapping[str, float] | None = None,
    ) -> subprocess.Popen[bytes]:
        ports = free_ports(7)
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        names += ("runtime-env-agent-port", "node-manager-port", "object-manager-port")
        self.metrics_ports.append(ports[2])
        command = [
            *(str(BIN / "ray"), "start", "--block", f"--node-ip-address={self.ip}", *arguments),
            *(f"--num-cpus={cpus}", f"--num-gpus={gpus}"),
            f"--resources={json.dumps(dict(resources or {}))}",
            *(f"--object-store-memory={_OBJECT_STORE}", "--disable-usage-stats"),
            *(f"--{name}={port}" for name, port in zip(names, ports, strict=False)),
        ]
        if "--head" in arguments:
            command.append(f"--ray-client-server-port={ports[6]}")
        log = self.folder / f"node-{len(self.metrics_ports)}.log"
        for _ in range(_ATTEMPTS):
            with log.open("wb") as file:
                node = subprocess.Popen(
                    command, env=self.env, stdout=file, stderr=file, start_new_session=True
                )
            self._nodes.append(node)
            if _has_started(node, log):
                return node
            # On a busy machine Ray's own limit of 30 s may be too short.
            self.lose(node)
        raise RuntimeError(f"a node did not start:\n{log.read_text()[-2000:]}")

    def _wait_for_job_server(self) -> None:
        deadline = time.monotonic() + _STARTING
        while True:
            try:
                self.get(f"{self.address}/api/jobs/")
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
            else:
                return


def _has_started(node: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until a node has started; return False if it ended or took too long."""
    deadline = time.monotonic() + _STARTING
    while node.poll() is None and time.monotonic() < deadline:
        if b"Ray runtime started" in log.read_bytes():
            return True
        time.sleep(0.1)
    return False


def _kill(node: subprocess.Popen[bytes]) -> None:
    """Kill the process of a node, its session and their children."""
    import ray  # noqa: F401  (has psutil on its path)
    import psutil  # isort: skip

    try:
        family = psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=_STOPPING)
    node.wait(timeout=_STOPPING)
