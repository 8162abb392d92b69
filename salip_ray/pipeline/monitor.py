"""What the driver knows of a running job: rows done per stage, and commits under way.

A tiny actor counts; stages tell it about every row and do not wait for an answer. It is also the
gate of the commits: a driver that is told to stop closes it, waits for the commits under way, and
leaves nothing half done. The counts are for people to watch. What counts in the end is what was
committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError


@dataclass
class Snapshot:
    """Rows done and seconds spent by stage, shards committed, and commits under way."""

    rows: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    committed: int = 0
    committing: set[int] = field(default_factory=set)
    closed: bool = False


class Monitor:
    """The actor's class; made by :func:`start_monitor`."""

    def __init__(self) -> None:
        self._now = Snapshot()

    def done(self, stage: str, seconds: float) -> None:
        """A stage is done with a row."""
        rows, spent = self._now.rows, self._now.seconds
        rows[stage] = rows.get(stage, 0) + 1
        spent[stage] = spent.get(stage, 0.0) + seconds

    def begin_commit(self, shard: int) -> bool:
        """Whether a commit may begin; False once the gate is closed."""
        if not self._now.closed:
            self._now.committing.add(shard)
        return not self._now.closed

    def end_commit(self, shard: int, committed: bool) -> None:
        """A commit is over, well or not."""
        self._now.committing.discard(shard)
        self._now.committed += committed

    def close(self) -> None:
        """Let no further commit begin."""
        self._now.closed = True

    def snapshot(self) -> Snapshot:
        """All of it, as it is now."""
        return self._now


def start_monitor() -> Any:
    """Start the actor; it asks for no CPU, and comes back (counting anew) if its worker dies."""
    return ray.remote(Monitor).options(num_cpus=0, max_restarts=-1).remote()


class Reporter:
    """A stage's line to the monitor, or to nobody where there is none."""

    def __init__(self, monitor: Any = None) -> None:
        self._monitor = monitor

    def done(self, stage: str, seconds: float) -> None:
        """Report a row, without waiting."""
        if self._monitor is not None:
            self._monitor.done.remote(stage, seconds)

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
        if self._monitor is not None:
            self._monitor.end_commit.remote(shard, committed)
