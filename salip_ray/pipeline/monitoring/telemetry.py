"""Metrics and log lines of a job.

Metrics go to Prometheus through Ray's metrics endpoint on every node. Ray prefixes each name with
``ray_``; ``infra/grafana/dashboard.json`` shows them. Each has the label ``run``, the id that the
log lines of the job carry, too.

Log lines go through the logger ``salip_ray``. If neither it nor the root logger has a handler, it
writes one JSON object per line to stderr, which Ray stores in a file per worker. The id of the run
in each line lets a collector (Loki, CloudWatch, ...) join the events of one job, shard or image
from many nodes. The lines name images, but hold nothing of their content.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from ray.util.metrics import Counter, Gauge

#: Metric -> its description, and its labels in addition to ``run``.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "salip_images_total": ("Images a stage is done with; rate() is images/s.", ("stage",)),
    "salip_stage_seconds_total": ("Seconds of work in a stage, over all workers.", ("stage",)),
    "salip_errors_total": ("Images that a stage turned into error rows.", ("stage",)),
    "salip_queue_images": ("Images waiting for a stage, or being processed by it.", ("stage",)),
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
    """The counts of the whole job, in the monitor.

    Args:
        stages: in the order of the pipeline. The queue of a stage is what the stage before it has
            done and it has not.
        run: the id of the run.
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
        """Count rows of a stage, the seconds spent on them, and how many became errors."""
        tags = {"stage": stage}
        self._rows[stage] = self._rows.get(stage, 0) + rows
        for counter, more in (
            (self._images, rows),
            (self._seconds, seconds),
            (self._errors, failed),
        ):
            if more > 0:
                counter.inc(float(more), tags=tags)
        for changed in (stage, self._after.get(stage)):
            if changed in self._before:
                self._queue.set(float(self.queue(changed)), tags={"stage": changed})

    def queue(self, stage: str) -> int:
        """Return how many rows wait for a stage; rows that were done twice can hide some."""
        return max(0, self._rows[self._before[stage]] - self._rows[stage])

    def committed(self) -> None:
        """Count a committed shard."""
        self._shards.inc(1.0)


class MemoryGauge:
    """The memory that one actor holds; lives in the actor."""

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
        device, used = device_memory()
        tags = {"stage": self._stage, "device": device, "pid": str(pid)}
        self._gauge.set(float(used), tags=tags)


def device_memory() -> tuple[str, int]:
    """Return the device that this process works on, and the bytes that it holds there."""
    torch = sys.modules.get("torch")  # a process that has not imported it holds nothing on a GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"cuda:{torch.cuda.current_device()}", int(torch.cuda.memory_reserved())
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return "cpu", 0
    return "cpu", pages * 4096


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object: time, level, event, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        time_ = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time_, "level": record.levelname, "event": record.getMessage()}
        return json.dumps(
            {**line, **getattr(record, "fields", {})}, ensure_ascii=False, default=str
        )


@cache
def _logger() -> logging.Logger:
    """Return the logger, with a JSON handler if logging is not configured in this process."""
    logger = logging.getLogger("salip_ray")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    return logger


def log_event(event: str, *, level: Literal["INFO", "WARNING"] = "INFO", **fields: Any) -> None:
    """Log one event.

    Args:
        event: what happened, for example ``image_error``.
        level: of the log record.
        fields: for example ``run``, ``stage``, ``shard``, ``image_id``; None leaves a field out.
            A handler finds them in ``record.fields``.
    """
    known = {name: value for name, value in fields.items() if value is not None}
    _logger().log(getattr(logging, level), event, extra={"fields": known})
