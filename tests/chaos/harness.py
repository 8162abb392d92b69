"""Jobs that are disturbed: a small cluster, a driver that can be killed, and a log of events.

Every job labels the same small images on the same cluster; each disturbance is one line of a log,
with the phase it fell into, the shards that were committed before, and how long it took until the
next commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2

from tests.chaos.outputs import Damage
from tests.conftest import SMALL
from tests.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[2]
#: Small pools that ask for little, so that a node has few processes.
SETTINGS = (
    *SMALL,
    "run.rows_per_shard=2",
    *("pools.propose.cpus=0.2", "pools.fetch_cpus=0.2"),
)
#: RETRIEVE and REFINE in separate actors, as on machines with GPUs.
APART = [
    f"pools.{stage}.{what}" for stage in ("retrieve", "refine") for what in ("size=1", "cpus=0.2")
]
_NODE = {"num_cpus": 1, "object_store_memory": 150_000_000}
#: Processes that work for no job. A node whose agents die is a lost node (`lose_node`).
_NO_WORKERS = ("ray::IDLE", "ray::_StatsActor", "ray::RuntimeEnvAgent", "ray::DashboardAgent")
_LIMIT = 600.0  # seconds after which a job that does not end is counted as crashed


def _patiently(start: Callable[[], Any], attempts: int = 4) -> Any:
    """Start a node, and retry: on a busy machine Ray's own limit of 30 s may be too short."""
    import psutil

    for attempt in range(attempts):
        before = {process.pid for process in psutil.Process().children(recursive=True)}
        try:
            return start()
        except Exception:  # Ray raises a plain Exception, and leaves what it has started
            for process in psutil.Process().children(recursive=True):
                if process.pid not in before:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            if attempt + 1 == attempts:
                raise
    raise AssertionError("unreachable")


@dataclass
class Event:
    """One disturbance."""

    what: str
    phase: str
    shards_before: int
    shards: int
    recovery_seconds: float | None = None


@dataclass
class Tally:
    """The disturbances of jobs and the damage; tallies of several slices add up."""

    counts: dict[str, int] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)
    events: list[Event] = field(default_factory=list)

    def count(self, what: str, more: int = 1) -> None:
        """Count a disturbance."""
        self.counts[what] = self.counts.get(what, 0) + more

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        """Return the tally of an earlier slice."""
        events = [Event(**event) for event in data["events"]]
        return cls(data["counts"], Damage(**data["damage"]), events)


def draw_images(folder: Path, count: int) -> Path:
    """Write small phantoms; one file in ten is cut off."""
    from salip_ray.models.bundled.phantoms import make_phantom

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index:04d}.png"
        if path.exists():
            continue
        phantom = make_phantom("chest_xray", index, bank="tune", size=64 + index % 7)
        data = cv2.imencode(".png", phantom.image[:, :, ::-1])[1].tobytes()
        path.write_bytes(data[: len(data) // 2] if index % 10 == 7 else data)
    return folder


#: What a planted file kills its worker at, its suffix, and the deaths that it may cost at most: one
#: while it is fetched with others, then three alone.
PLANTED = {
    "fetch-kills.png": 4,
    "open-kills.tif": 3,
    "reference-kills.png": 3,
    "propose-kills.png": 3,
    "retrieve-kills.png": 3,
    "refine-kills.png": 3,
}
PAGES = 6


def draw_planted(folder: Path) -> Path:
    """Write small phantoms, some of them named to kill their workers; the TIFF has six pages."""
    import PIL.Image

    draw_images(folder, 16)  # more than half of all rows, so that the job succeeds
    phantom = PIL.Image.open(folder / "0000.png").convert("L")
    for name in PLANTED:
        more = {"save_all": True, "append_images": [phantom] * (PAGES - 1)}
        phantom.save(folder / name, **(more if name.endswith(".tif") else {}))
    return folder


@dataclass
class Job:
    """A job as a person would start it; its driver is a separate process."""

    address: str
    input: str
    output: str
    folder: Path  # of the output; for a bucket, where `collect` puts its files
    work: Path
    hook: str = ""
    storage: dict[str, Any] = field(default_factory=dict)
    proposers: int = 1
    apart: bool = False
    server: S3Server | None = None  # of an output in a bucket
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0

    def start(self) -> None:
        """Start the driver, or start it again."""
        spec = self.work / "spec.json"
        names = ("address", "input", "output", "hook", "storage")
        settings = [*SETTINGS, f"pools.propose.size={self.proposers}", *APART * self.apart]
        data = {name: getattr(self, name) for name in names}
        self._hold.unlink(missing_ok=True)
        spec.write_text(json.dumps({**data, "settings": settings, "hold": str(self._hold)}))
        self.started = time.time()
        with (self.work / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.driver", str(spec)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Return True if the driver runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL the driver and whatever it started itself."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP the driver and whatever it started itself."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def unpause(self) -> None:
        """Let the driver continue."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def wait(self, seconds: float = _LIMIT) -> bool:
        """Return True if the job ended without an error."""
        assert self.process is not None
        try:
            return self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def collect(self) -> Path:
        """Return the folder with the files of the output, read through S3 from a bucket."""
        if self.server is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.server.download(self.output.removeprefix("s3://"), self.folder)
        return self.folder

    @property
    def committed(self) -> int:
        """Return the number of committed shards."""
        return len(list(self.folder.glob("shards/part-*.parquet")))

    @property
    def committing(self) -> bool:
        """Return True if the job is between the first and the last file of a commit."""
        done = {path.stem for path in self.folder.glob("shards/part-*.parquet")}
        for path in self.folder.glob("masks/part-*.tar"):
            with contextlib.suppress(FileNotFoundError):
                if path.stem not in done and path.stat().st_mtime > self.started:
                    return True
        return False

    @property
    def phase(self) -> str:
        """Return the phase of the job, as its output shows it."""
        if self.committing:
            return "commit"
        with contextlib.suppress(OSError, ValueError):
            lease = json.loads((self.folder / "lease.json").read_text())
            return "labelling" if lease.get("progress", {}).get("rows") else "start-up"
        return "before the claim"

    def until(self, moment: Callable[[], bool], seconds: float = _LIMIT) -> bool:
        """Wait for a condition; return False if the driver ended before."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            if moment():
                return True
            time.sleep(0.004)
        return False

    @property
    def _hold(self) -> Path:
        """Return the file that holds commits half-way as long as it exists."""
        return self.work / "hold"

    def until_commit_under_way(self, goal: int) -> bool:
        """Wait for ``goal`` shards, then for a commit, and hold it until the job starts again."""
        if not self.until(lambda: self.committed >= goal):
            return False
        self._hold.touch()
        if self.until(lambda: self.committing):
            return True
        self._hold.unlink()
        return False

    def stays_for(self, seconds: float) -> bool:
        """Wait some time; return False if the driver ended before."""
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() > end)

    def until_next_commit(self, before: int) -> bool:
        """Wait for one more shard."""
        return self.until(lambda: self.committed > before)


class SmallCluster:
    """A head and two nodes in separate processes; nodes can be lost and added."""

    def __init__(self, nodes: int = 2) -> None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        self._environment = dict(os.environ)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Workers as nice as their driver: on a busy machine Ray's 15 would keep them from starting.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's own spelling)
        os.environ["PYTHONPATH"] = str(ROOT)
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        _patiently(lambda: self._cluster.add_node(include_dashboard=False, **_NODE))
        self._nodes = [_patiently(self._new_node) for _ in range(nodes)]

    @property
    def address(self) -> str:
        """Return the address for ``ray.init``."""
        return str(self._cluster.address)

    def lose_node(self, rng: random.Random) -> None:
        """Kill every process of a node that is not the head."""
        node = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)

    def add_node(self) -> None:
        """Start another node."""
        self._nodes.append(_patiently(self._new_node))

    def _new_node(self) -> Any:
        return self._cluster.add_node(**_NODE)

    def kill_worker(self, rng: random.Random) -> str | None:
        """SIGKILL a process that works for a job; return its name, or None if there is none."""
        import psutil

        working = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                name = " ".join(process.cmdline())
                if name.startswith("ray::") and not name.startswith(_NO_WORKERS):
                    working.append((process, name))
        if not working:
            return None
        kinds = sorted({name.split("(")[0] for _, name in working})
        actors = [kind for kind in kinds if kind.startswith("ray::MapWorker")]
        # Every other one an actor that labels, the others of any kind: tasks are more numerous.
        kind = rng.choice(actors if actors and rng.random() < 0.5 else kinds)
        process, name = rng.choice([each for each in working if each[1].startswith(kind)])
        with contextlib.suppress(psutil.Error):
            process.kill()
        return name.split("(")[0].removeprefix("ray::").strip()

    def close(self) -> None:
        """Stop the cluster, and restore the environment."""
        self._cluster.shutdown()
        os.environ.clear()
        os.environ.update(self._environment)


@contextlib.contextmanager
def small_cluster(nodes: int = 2) -> Iterator[SmallCluster]:
    """A cluster for the time of a block."""
    cluster = SmallCluster(nodes)
    try:
        yield cluster
    finally:
        cluster.close()
