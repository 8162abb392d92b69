"""Read the progress of a job from its output alone, on any machine: ``salip-ray status``.

Committed images are counted from the statistics of the shards. The lease that the driver renews
tells who writes the output, how many images each stage has done, and how fast. An expired lease
means that no driver is running.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow.compute as pc

from salip_ray.errors import NoJobError, OutputError, StoreError
from salip_ray.output.layout import STATS, shard_file, shard_numbers
from salip_ray.output.lease_holder import LeaseHolder, read_lease
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store_clients import Version

State = Literal["running", "stopped", "complete"]
_LAST_STAGE = "refine"
PATIENCE_SECONDS = 300.0  #: how long :func:`follow` retries a store that fails


@dataclass(frozen=True)
class Driver:
    """The driver that writes the output, as its lease says."""

    host: str
    pid: int
    started: str
    renewed: str


@dataclass(frozen=True)
class Status:
    """The progress of a job.

    Attributes:
        output: its public URI.
        state: ``running`` if a driver holds the lease, ``complete`` if all shards are committed,
            else ``stopped``.
        images: number of images of the manifest.
        done: images in committed shards, error rows included.
        failed: images in committed shards whose row is an error.
        ahead: images labelled by the running driver, committed or not.
        shards: number of shards of the manifest.
        committed: number of committed shards.
        status: number of committed rows by status.
        stages: number of images that each stage of the running driver has done.
        images_per_second: of the running driver since it started to label.
        seconds_left: at that rate.
        driver: the running driver, or None.
    """

    output: str
    state: State
    images: int
    done: int
    failed: int
    ahead: int
    shards: int
    committed: int
    status: dict[str, int] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    images_per_second: float | None = None
    seconds_left: float | None = None
    driver: Driver | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON-ready data."""
        return asdict(self)


def read_status(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    manifest: str | None = None,
    now: datetime | None = None,
) -> Status:
    """Read the progress of a job.

    Args:
        output: a location that ``salip-ray label`` writes or wrote.
        storage_options: fsspec options of a remote output.
        manifest: the file of its manifest, if that is not in the output.
        now: the time; by default that of this machine's clock.

    Raises:
        NoJobError: there is no ``run.json``, or no manifest yet.
        OutputError: a file of the output cannot be read, or not by this version.
    """
    return StatusReader(output, storage_options, manifest=manifest).read(now)


class StatusReader:
    """Reads the progress of one job again and again, fetching only files that changed.

    Args:
        output: as for :func:`read_status`.
        storage_options: as for :func:`read_status`.
        manifest: as for :func:`read_status`.

    Raises:
        NoJobError: there is no ``run.json``.
        OutputError: ``run.json`` cannot be read, or not by this version.
    """

    def __init__(
        self,
        output: str,
        storage_options: Mapping[str, Any] | None = None,
        *,
        manifest: str | None = None,
    ) -> None:
        self._output = LabelOutput.open(output, storage_options, manifest)
        self._sizes: tuple[int, int] | None = None
        self._counts: dict[str, tuple[Version | None, dict[str, int]]] = {}

    def read(self, now: datetime | None = None) -> Status:
        """Read the progress now.

        Raises:
            NoJobError: there is no manifest yet.
            OutputError: a file of the output cannot be read.
        """
        lease = read_lease(self._output.store)
        if lease is not None and not lease.is_current(now or datetime.now(UTC)):
            lease = None
        names = self._output.shards
        images, shards = self._planned_sizes(len(names))
        counts: Counter[str] = Counter()
        for shard_counts in self._committed_counts(names):
            counts.update(shard_counts)
        done = counts.total()
        progress = lease.progress if lease else {}
        rows = {str(stage): int(count) for stage, count in progress.get("rows", {}).items()}
        ahead, seconds = rows.get(_LAST_STAGE, 0), float(progress.get("seconds", 0.0))
        rate = ahead / seconds if ahead and seconds else None
        left = max(0, int(progress.get("images", images - done)) - ahead)
        return Status(
            output=self._output.uri,
            state="running" if lease else "complete" if len(names) >= shards else "stopped",
            images=images,
            done=done,
            failed=counts["error"],
            ahead=ahead,
            shards=shards,
            committed=len(names),
            status=dict(sorted(counts.items())),
            stages=rows,
            images_per_second=round(rate, 3) if rate else None,
            seconds_left=round(left / rate, 1) if rate else None,
            driver=_driver(lease) if lease else None,
        )

    def _planned_sizes(self, committed: int) -> tuple[int, int]:
        """Return the numbers of images and shards; read the manifest again only if it has grown."""
        if self._sizes is None or committed >= self._sizes[1]:
            shards = self._output.manifest(["shard"])["shard"]
            last = pc.max(shards).as_py()
            self._sizes = len(shards), 0 if last is None else int(last) + 1
        return self._sizes

    def _committed_counts(self, shards: Sequence[str]) -> list[dict[str, int]]:
        """Return the number of rows by status of each committed shard, from its statistics."""
        store = self._output.store
        names = [shard_file(STATS, number) for number in sorted(shard_numbers(shards))]
        versions = {f"{STATS}/{name}": v for name, v in store.versions(STATS).items()}
        changed = [n for n in names if self._counts.get(n, (None,))[0] != versions.get(n)]
        for name, data in store.read_all(changed).items():
            self._counts[name] = versions.get(name), _row_counts(data, store.path_of(name))
        return [self._counts[name][1] for name in names if name in self._counts]


def follow(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    manifest: str | None = None,
    every: float = 10.0,
    wait: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Status]:
    """Yield the progress of a job until it is complete or no driver is running.

    A killed driver counts as running until its lease expires.

    Args:
        output: a location that ``salip-ray label`` writes, or is about to.
        storage_options: fsspec options of a remote output.
        manifest: the file of its manifest, if that is not in the output.
        every: seconds between two reads.
        wait: seconds to wait for a job to start or to be resumed.
        clock: returns the time in seconds.
        sleep: waits for a number of seconds.

    Raises:
        NoJobError: no job was started within ``wait`` seconds.
        OutputError: the output cannot be read, or not by this version.
    """
    reader: StatusReader | None = None
    last_running = last_answer = clock()
    while True:
        now = clock()
        try:
            reader = reader or StatusReader(output, storage_options, manifest=manifest)
            status = reader.read()
        except NoJobError:
            if now - last_running >= wait:
                raise
            last_answer = now
        except StoreError:
            if now - last_answer >= PATIENCE_SECONDS:
                raise
        else:
            last_answer = now
            yield status
            if status.state == "running":
                last_running = now
            elif status.state == "complete" or now - last_running >= wait:
                return
        sleep(every)


def _row_counts(stats: bytes, path: str) -> dict[str, int]:
    try:
        counts = json.loads(stats)["status"]
        return {str(status): int(count) for status, count in counts.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OutputError(f"{path} is damaged: run salip-ray verify") from None


def _driver(lease: LeaseHolder) -> Driver:
    return Driver(lease.host, lease.pid, lease.started, lease.renewed)
