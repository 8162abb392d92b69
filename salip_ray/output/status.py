"""How far a job is, from its output alone and from any machine: ``salip-ray status``.

What is committed is counted from the shards' statistics. Who is at it, how far ahead of its last
commit and how fast, is in the lease that the driver renews; where that has run out nobody is.

Watching a job from its output alone until it is over: ``salip-ray status --follow``.
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

from salip_ray.errors import NoJobError, OutputError, SalipError
from salip_ray.output.reader import LabelOutput, explaining
from salip_ray.sources.locations import join, public_uri
from salip_ray.sources.stores import read_existing, said, uncovered

State = Literal["running", "stopped", "complete"]
_LEASE = "lease.json"
_LAST_STAGE = "refine"


@dataclass(frozen=True)
class Driver:
    """Who writes the output, as the lease says."""

    host: str
    pid: int
    started: str
    renewed: str


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes:
        output: its public URI.
        state: ``running`` where a driver holds the output, ``complete`` where all is committed,
            else ``stopped``.
        images: of the manifest.
        done: images in committed shards, the failed ones among them.
        failed: images whose row is an error.
        ahead: images labelled by the running driver; the last of them not committed yet.
        shards: of the manifest.
        committed: shards that are there.
        status: committed rows by status.
        stages: images that each stage of the running driver is done with.
        images_per_second: of the running driver since it began to label.
        seconds_left: at that rate.
        driver: the running one.
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
        """As JSON-ready data."""
        return asdict(self)


def read_status(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    manifest: str | None = None,
    now: datetime | None = None,
) -> Status:
    """Read how far a job is.

    Args:
        output: a location that ``salip-ray label`` writes or wrote.
        storage_options: fsspec's, for a remote output.
        manifest: where its manifest is kept, if not in the output.
        now: the time; by default that of this machine's clock.

    Raises:
        OutputError: there is no ``run.json`` that this version can read, or no manifest yet; or
            the store does not let them be read.
    """
    with explaining(output):
        return StatusReader(output, storage_options, manifest=manifest).read(now)


class StatusReader:
    """Reads again and again how far one job is; of what has not changed nothing is fetched.

    What the store's client raises is raised as it is: the next look may be answered.

    Args:
        output: as for :func:`read_status`.
        storage_options: as there.
        manifest: as there.

    Raises:
        OutputError: there is no ``run.json`` that this version can read.
    """

    def __init__(
        self,
        output: str,
        storage_options: Mapping[str, Any] | None = None,
        *,
        manifest: str | None = None,
    ) -> None:
        self._labels = LabelOutput.open_patiently(output, storage_options, manifest)
        self._sizes: tuple[int, int] | None = None
        self._counts: dict[str, tuple[Any, dict[str, int]]] = {}

    def read(self, now: datetime | None = None) -> Status:
        """How far the job is now.

        Raises:
            OutputError: there is no manifest yet.
        """
        labels = self._labels
        labels._fs.invalidate_cache()
        lease = _live_lease(labels, now or datetime.now(UTC))
        names = labels.shards
        images, shards = self._planned(len(names))
        counts: Counter[str] = Counter()
        for found in self._committed(names):
            counts.update(found)
        done = counts.total()
        progress = lease.get("progress", {}) if lease else {}
        rows = {str(stage): int(count) for stage, count in progress.get("rows", {}).items()}
        ahead, seconds = rows.get(_LAST_STAGE, 0), float(progress.get("seconds", 0.0))
        rate = ahead / seconds if ahead and seconds else None
        left = max(0, int(progress.get("images", images - done)) - ahead)
        return Status(
            output=labels.uri,
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

    def _planned(self, committed: int) -> tuple[int, int]:
        """Images and shards of the manifest, which is read again only where it has grown."""
        if self._sizes is None or committed >= self._sizes[1]:
            shards = self._labels.manifest(["shard"])["shard"]
            last = pc.max(shards).as_py()
            self._sizes = len(shards), 0 if last is None else int(last) + 1
        return self._sizes

    def _committed(self, names: Sequence[str]) -> list[dict[str, int]]:
        """Rows by status of each committed shard, from its statistics."""
        versions = _versions(self._labels, "stats")
        wanted = [f"{name.removesuffix('.parquet')}.json" for name in names]
        new = [name for name in wanted if self._counts.get(name, (None,))[0] != versions.get(name)]
        for name, data in _read_all(self._labels, "stats", new).items():
            self._counts[name] = versions.get(name), dict(json.loads(data)["status"])
        return [self._counts[name][1] for name in wanted if name in self._counts]


def _versions(labels: LabelOutput, folder: str) -> dict[str, Any]:
    """What tells each file of a folder from what it was before it was written anew."""
    try:
        entries = labels._fs.ls(join(labels._root, folder), detail=True)
    except FileNotFoundError:
        return {}
    return {
        entry["name"].rstrip("/").rpartition("/")[2]: tuple(
            str(entry.get(key)) for key in ("size", "mtime", "LastModified", "updated", "ETag")
        )
        for entry in entries
    }


def _read_all(labels: LabelOutput, folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """The files of a folder that are there, fetched together."""
    fs, root = labels._fs, join(labels._root, folder)
    if not names:
        return {}
    found: dict[str, bytes] = {}
    for path, data in read_existing(fs, [join(root, name) for name in names]).items():
        if isinstance(data, Exception):  # a job must not look less far than it is
            raise data
        found[path.rpartition("/")[2]] = data
    return found


def _live_lease(labels: LabelOutput, now: datetime) -> dict[str, Any] | None:
    try:
        lease = json.loads(labels._fs.cat_file(join(labels._root, _LEASE)))
        live = datetime.fromisoformat(lease["expires"]) > now
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return dict(lease) if live else None


def _driver(lease: Mapping[str, Any]) -> Driver:
    return Driver(
        host=str(lease.get("host")),
        pid=int(lease.get("pid", 0)),
        started=str(lease.get("started")),
        renewed=str(lease.get("renewed")),
    )


#: How long a store that fails is asked again.
PATIENCE_SECONDS = 300.0


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
    """Yield how far a job is, until it is complete or nobody is at it any more.

    A driver that was killed is taken for alive until its lease has run out.

    Args:
        output: a location that ``salip-ray label`` writes, or is about to.
        storage_options: fsspec's, for a remote output.
        manifest: where its manifest is kept, if not in the output.
        every: seconds between two looks.
        wait: seconds that a job which nobody is at may take to begin, or to be gone on with.
        clock: the time, in seconds.
        sleep: waits.

    Raises:
        NotBegunError: nothing was begun within ``wait``.
        OutputError: the output cannot be read, or not by this version.
    """
    watch: StatusReader | None = None
    seen = answered = clock()  # somebody at the job; the store
    while True:
        now = clock()
        try:
            watch = watch or StatusReader(output, storage_options, manifest=manifest)
            status = watch.read()
        except NoJobError:
            if now - seen >= wait:
                raise
            answered = now
        except SalipError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
            if now - answered >= PATIENCE_SECONDS:
                problem = said(uncovered(error), output)
                raise OutputError(f"cannot read {public_uri(output)}: {problem}") from None
        else:
            answered = now
            yield status
            if status.state == "running":
                seen = now
            elif status.state == "complete" or now - seen >= wait:
                return
        sleep(every)
