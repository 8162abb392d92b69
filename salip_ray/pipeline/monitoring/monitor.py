"""Count what a running job does: rows and seconds per stage, committed shards, deaths of workers.

A small actor counts. Stages send it their tallies a few times a second and do not wait for an
answer. The counts are for progress, metrics and the notes of deaths; only committed shards decide
what is done.
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

from salip_ray.pipeline.commit_gate import GateState
from salip_ray.pipeline.monitoring.telemetry import JobMetrics, MemoryGauge, log_event

_FLUSH_SECONDS = 0.25


@dataclass
class Snapshot:
    """Rows done and seconds spent by stage, and the number of committed shards.

    ``processed`` counts the rows that a stage worked on and that are no error rows, over all
    stages: rows that only pass through do not show that a worker can do its work.
    """

    rows: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    committed: int = 0
    processed: int = 0


@dataclass
class Tally:
    """Rows that a stage is done with, the seconds spent on them, and how many it made errors.

    ``passed`` counts the rows that it passed on without work.
    """

    rows: int = 0
    seconds: float = 0.0
    failed: int = 0
    passed: int = 0


class Monitor(GateState):
    """The actor of a job, made by :func:`start_monitor`: its counts, and the state of its gate.

    Args:
        stages: of the job, in order.
        run: the id of the run in metrics.
    """

    def __init__(self, stages: Sequence[str], run: str) -> None:
        super().__init__()
        self._now = Snapshot()
        self._metrics = JobMetrics(stages, run)
        self._deaths: Counter[str] = Counter()

    def died(self, note: str) -> None:
        """Count a worker that died.

        Args:
            note: what it processed: the keys on a line count together. Of several lines it is not
                known which one it died on, so their keys are only listed.
        """
        keys = note.split()
        if len(note.splitlines()) == 1:
            self._deaths.update(keys)
        else:
            for key in keys:
                self._deaths.setdefault(key, 0)

    def deaths(self) -> dict[str, int]:
        """Return how many workers died on each key that a dead worker noted."""
        return dict(self._deaths)

    def done(self, tallies: Mapping[str, Tally]) -> None:
        """Count rows that stages are done with."""
        rows, spent = self._now.rows, self._now.seconds
        for stage, tally in tallies.items():
            self._metrics.done(stage, tally.rows, tally.seconds, failed=tally.failed)
            rows[stage] = rows.get(stage, 0) + tally.rows
            spent[stage] = spent.get(stage, 0.0) + tally.seconds
            self._now.processed += tally.rows - tally.failed - tally.passed

    def end_commit(self, shard: int, committed: bool) -> None:
        """Note that a commit has ended, and count it if it succeeded."""
        super().end_commit(shard, committed)
        self._now.committed += committed
        if committed:
            self._metrics.committed()

    def snapshot(self) -> Snapshot:
        """Return the counts."""
        return self._now

    def end(self) -> None:
        """End this actor. Ray Data keeps handles of it, so it would live as long as the session."""
        ray.actor.exit_actor()


def start_monitor(stages: Sequence[str], run: str) -> Any:
    """Start the actor. It needs no CPU; if its worker dies, it restarts and counts from zero.

    Args:
        stages: of the job, in order.
        run: the id of the run in metrics.
    """
    options = ray.remote(Monitor).options(num_cpus=0, max_restarts=-1)
    return options.remote(list(stages), run)


class TallyBuffer:
    """Collect the tallies of one process: a call per row would keep the monitor busy.

    Args:
        send: called with the tallies by stage, in another thread.
    """

    def __init__(self, send: Callable[[Mapping[str, Tally]], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}

    def add(self, stage: str, seconds: float, *, failed: bool, passed: bool = False) -> None:
        """Count a row; the first row starts the timer of the next flush."""
        with self._lock:
            if not self._tallies:
                timer = threading.Timer(_FLUSH_SECONDS, self.flush)
                timer.daemon = True
                timer.start()
            tally = self._tallies.setdefault(stage, Tally())
            tally.rows += 1
            tally.seconds += seconds
            tally.failed += failed
            tally.passed += passed

    def flush(self) -> None:
        """Send the collected tallies, if any."""
        with self._lock:
            tallies, self._tallies = self._tallies, {}
        if tallies:
            self._send(tallies)


class StageReporter:
    """Report the rows of a stage to the monitor; cheap to pickle.

    Args:
        monitor: the actor, or None: then rows are only logged.
        run: the id of the run in log lines.

    Attributes:
        run: as given.
        notes: names the folder of this driver's notes (:mod:`~salip_ray.pipeline.workers.deaths`).
        counts: True if there is a monitor.
    """

    def __init__(self, monitor: Any = None, run: str = "") -> None:
        self._monitor = monitor
        self.run = run
        self.notes = uuid.uuid4().hex
        self.counts = monitor is not None
        self._memory: MemoryGauge | None = None
        self._buffer: TallyBuffer | None = None

    def __hash__(self) -> int:
        return hash(self.notes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StageReporter) and other.notes == self.notes

    def died(self, note: str) -> None:
        """Report a worker that died, with its note of what it processed."""
        if self._monitor is not None:
            self._monitor.died.remote(note)

    def deaths(self) -> Mapping[str, int]:
        """Return how many workers died on each key that a dead worker noted."""
        if self._monitor is None:
            return {}
        try:
            return dict(ray.get(self._monitor.deaths.remote()))
        except RayError:
            return {}  # the monitor restarts, and counts from zero

    def done(
        self,
        stage: str,
        seconds: float,
        *,
        error: Mapping[str, Any] | None = None,
        row: Mapping[str, Any] | None = None,
        passed: bool = False,
    ) -> None:
        """Report a row. The monitor receives it a moment later, together with others.

        Args:
            stage: the stage that is done with the row.
            seconds: spent on it.
            error: the row's ``error`` cell, if this stage made it an error row.
            row: shard, image_id and uri, for the log line of an error.
            passed: the stage passed the row on without work.
        """
        if error is not None:
            log_event("image_error", level="WARNING", run=self.run, **{**error, **(row or {})})
        if self._monitor is not None:
            self._buffer = self._buffer or TallyBuffer(self._monitor.done.remote)
            self._buffer.add(stage, seconds, failed=error is not None, passed=passed)

    def flush(self) -> None:
        """Send everything that was reported to the monitor now."""
        if self._buffer is not None:
            self._buffer.flush()

    def memory(self, stage: str) -> None:
        """Report the memory of this process to the metrics, at most every few seconds."""
        if self._monitor is not None:
            self._memory = self._memory or MemoryGauge(stage, self.run)
            self._memory.look(os.getpid())
