"""What the driver knows of a running job: rows done per stage, and commits under way.

A tiny actor counts; stages tell it a few times a second what they did and do not wait for an
answer. It is also the gate of the commits: a driver that is told to stop closes it, waits for the
commits under way, and leaves nothing half done. The counts are for people to watch. What counts in
the end is what was committed.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from salip_ray.pipeline.telemetry import JobMetrics, MemoryGauge, log_event

_FLUSH_SECONDS = 0.25


@dataclass
class Snapshot:
    """Rows done and seconds spent by stage, shards committed, and commits under way."""

    rows: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    committed: int = 0
    committing: set[int] = field(default_factory=set)
    closed: bool = False


@dataclass
class Tally:
    """Rows that a stage is done with, the seconds spent on them, and how many it made errors."""

    rows: int = 0
    seconds: float = 0.0
    failed: int = 0


class Monitor:
    """The actor's class; made by :func:`start_monitor`."""

    def __init__(self, stages: Sequence[str], run: str) -> None:
        self._now = Snapshot()
        self._metrics = JobMetrics(stages, run)
        self._deaths: Counter[str] = Counter()

    def died(self, image_id: str) -> None:
        """A worker died while it was at an image."""
        self._deaths[image_id] += 1

    def deaths(self) -> dict[str, int]:
        """How many workers died on each image; those without a death are left out."""
        return dict(self._deaths)

    def done(self, tallies: Mapping[str, Tally]) -> None:
        """Stages are done with rows."""
        rows, spent = self._now.rows, self._now.seconds
        for stage, tally in tallies.items():
            self._metrics.done(stage, tally.rows, tally.seconds, failed=tally.failed)
            rows[stage] = rows.get(stage, 0) + tally.rows
            spent[stage] = spent.get(stage, 0.0) + tally.seconds

    def begin_commit(self, shard: int) -> bool:
        """Whether a commit may begin; False once the gate is closed."""
        if not self._now.closed:
            self._now.committing.add(shard)
        return not self._now.closed

    def end_commit(self, shard: int, committed: bool) -> None:
        """A commit is over, well or not."""
        self._now.committing.discard(shard)
        self._now.committed += committed
        if committed:
            self._metrics.committed()

    def close(self) -> None:
        """Let no further commit begin."""
        self._now.closed = True

    def snapshot(self) -> Snapshot:
        """All of it, as it is now."""
        return self._now


def start_monitor(stages: Sequence[str], run: str) -> Any:
    """Start the actor; it asks for no CPU, and comes back (counting anew) if its worker dies.

    Args:
        stages: of the job, in order.
        run: its id in metrics and log lines.
    """
    options = ray.remote(Monitor).options(num_cpus=0, max_restarts=-1)
    return options.remote(list(stages), run)


class TallyBuffer:
    """What a process has done since it last told: a call for every row would keep the monitor busy.

    Args:
        send: takes the tallies by stage; called from a thread of its own.
    """

    def __init__(self, send: Callable[[Mapping[str, Tally]], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}

    def add(self, stage: str, seconds: float, *, failed: bool) -> None:
        """Count a row; the first one has all be told soon."""
        with self._lock:
            if not self._tallies:
                timer = threading.Timer(_FLUSH_SECONDS, self.flush)
                timer.daemon = True
                timer.start()
            tally = self._tallies.setdefault(stage, Tally())
            tally.rows += 1
            tally.seconds += seconds
            tally.failed += failed

    def flush(self) -> None:
        """Send what there is."""
        with self._lock:
            tallies, self._tallies = self._tallies, {}
        if tallies:
            self._send(tallies)


class StageReporter:
    """A stage's line to the monitor, or to nobody where there is none; cheap to pickle."""

    def __init__(self, monitor: Any = None, run: str = "") -> None:
        self._monitor = monitor
        self.run = run
        self._memory: MemoryGauge | None = None
        self._buffer: TallyBuffer | None = None
        self.notes = uuid.uuid4().hex  # tells this driver's notes of attempts from another's
        self.counts = monitor is not None

    def __hash__(self) -> int:
        return hash(self.notes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StageReporter) and other.notes == self.notes

    def died(self, image_id: str) -> None:
        """Report that a worker died at an image."""
        if self._monitor is not None:
            self._monitor.died.remote(image_id)

    def deaths(self) -> Mapping[str, int]:
        """Ask how many workers died on each image that workers died on."""
        if self._monitor is None:
            return {}
        try:
            return dict(ray.get(self._monitor.deaths.remote()))
        except RayError:
            return {}  # it is coming back, and counts anew

    def done(
        self,
        stage: str,
        seconds: float,
        *,
        error: Mapping[str, Any] | None = None,
        row: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a row; the monitor hears of it a moment later, with others.

        Args:
            stage: that is done with it.
            seconds: spent on it.
            error: the row's ``error`` cell, where this stage made it an error row.
            row: what names the row in the log line of an error: shard, image_id, uri.
        """
        if error is not None:
            log_event("image_error", level="WARNING", run=self.run, **{**error, **(row or {})})
        if self._monitor is not None:
            self._buffer = self._buffer or TallyBuffer(self._monitor.done.remote)
            self._buffer.add(stage, seconds, failed=error is not None)

    def flush(self) -> None:
        """Have the monitor hear now of all that was reported."""
        if self._buffer is not None:
            self._buffer.flush()

    def memory(self, stage: str) -> None:
        """Tell the metrics what this actor holds, now and then."""
        if self._monitor is not None:
            self._memory = self._memory or MemoryGauge(stage, self.run)
            self._memory.look(os.getpid())

    def begin_commit(self, shard: int) -> bool:
        """Ask whether the shard may be committed; without a monitor that can answer, it may."""
        if self._monitor is None:
            return True
        try:
            return bool(ray.get(self._monitor.begin_commit.remote(shard)))
        except RayError:
            return True  # the gate is a courtesy: every commit is atomic without it

    def end_commit(self, shard: int, *, committed: bool) -> None:
        """Report the end of a commit, without waiting."""
        outcome = "shard_committed" if committed else "shard_not_committed"
        log_event(outcome, run=self.run, shard=shard)
        if self._monitor is not None:
            self._monitor.end_commit.remote(shard, committed)
