"""What a job tells Prometheus, by way of Ray's own metrics endpoint on every node.

Ray prefixes each name with ``ray_``; ``infra/grafana/dashboard.json`` draws them. All carry the
label ``run``, the id that the job's log lines carry, too.

Log lines for machines: one JSON object a line on stderr, which Ray keeps in a file per worker.

Each has the run's id, so that a collector (Loki, CloudWatch, ...) can put together what happened to
one job, one shard or one image on many nodes. They name images, but nothing of what is in them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from ray.util.metrics import Counter, Gauge

#: Metric -> what it says, and its labels beside ``run``.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "salip_images_total": ("Images a stage is done with; rate() is images/s.", ("stage",)),
    "salip_stage_seconds_total": ("Seconds of work in a stage, over all workers.", ("stage",)),
    "salip_errors_total": ("Images that a stage turned into error rows.", ("stage",)),
    "salip_queue_images": ("Images waiting for a stage, or in its hands.", ("stage",)),
    "salip_shards_committed_total": ("Shards committed by this run.", ()),
    "salip_device_memory_bytes": (
        "Memory held by the actors of a stage: torch's on a GPU, else the process's.",
        ("stage", "device", "pid"),
    ),
}
_MEMORY_SECONDS = 10.0
_Kind = TypeVar("_Kind", Counter, Gauge)


def _make(kind: type[_Kind], name: str, run: str) -> _Kind:
    metric = kind(name, description=METRICS[name][0], tag_keys=(*METRICS[name][1], "run"))
    metric.set_default_tags({"run": run})
    return metric


class JobMetrics:
    """The counts of the whole job; lives in the monitor, which hears of all rows.

    Args:
        stages: in the order of the pipeline; a queue is what the one before is ahead.
        run: the job's id.
    """

    def __init__(self, stages: Sequence[str], run: str) -> None:
        self._before = dict(zip(stages[1:], stages, strict=False))
        self._after = {before: stage for stage, before in self._before.items()}
        self._rows = dict.fromkeys(stages, 0)
        self._images = _make(Counter, "salip_images_total", run)
        self._seconds = _make(Counter, "salip_stage_seconds_total", run)
        self._errors = _make(Counter, "salip_errors_total", run)
        self._queue = _make(Gauge, "salip_queue_images", run)
        self._shards = _make(Counter, "salip_shards_committed_total", run)

    def done(self, stage: str, rows: int, seconds: float, *, failed: int) -> None:
        """A stage is done with rows, in so many seconds, and made some of them errors."""
        tags = {"stage": stage}
        self._rows[stage] = self._rows.get(stage, 0) + rows
        for counter, more in (
            (self._images, rows),
            (self._seconds, seconds),
            (self._errors, failed),
        ):
            if more > 0:
                counter.inc(float(more), tags=tags)
        for place in (stage, self._after.get(stage)):
            if place in self._before:
                waiting = self.queue(place)
                self._queue.set(float(waiting), tags={"stage": place})

    def queue(self, stage: str) -> int:
        """Rows that the stage before has done and this one has not; rows done again may hide."""
        return max(0, self._rows[self._before[stage]] - self._rows[stage])

    def committed(self) -> None:
        """A shard is committed."""
        self._shards.inc(1.0)


class MemoryGauge:
    """The memory that one actor holds, looked at now and then; lives in the actor."""

    def __init__(self, stage: str, run: str) -> None:
        self._stage = stage
        self._gauge = _make(Gauge, "salip_device_memory_bytes", run)
        self._next = 0.0

    def look(self, pid: int) -> None:
        """Set the gauge, at most every ten seconds."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _MEMORY_SECONDS
        device, held = device_memory()
        tags = {"stage": self._stage, "device": device, "pid": str(pid)}
        self._gauge.set(float(held), tags=tags)


def device_memory() -> tuple[str, int]:
    """The device this process works on, and the bytes that it holds there."""
    torch = sys.modules.get("torch")  # a process that has not imported it holds nothing on a GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"cuda:{torch.cuda.current_device()}", int(torch.cuda.memory_reserved())
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return "cpu", 0
    return "cpu", pages * 4096


def log_event(event: str, *, level: Literal["INFO", "WARNING"] = "INFO", **fields: Any) -> None:
    """Write one line: when, how bad, what, and the fields that are not None.

    Args:
        event: what happened, as in ``image_error``.
        level: how bad it is.
        fields: as ``run``, ``stage``, ``shard``, ``image_id``.
    """
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    known = {name: value for name, value in fields.items() if value is not None}
    line = {"time": when, "level": level, "event": event, **known}
    sys.stderr.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    sys.stderr.flush()
