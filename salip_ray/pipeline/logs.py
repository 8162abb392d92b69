"""Log lines for machines: one JSON object a line on stderr, which Ray keeps in a file per worker.

Each has the run's id, so that a collector (Loki, CloudWatch, ...) can put together what happened to
one job, one shard or one image on many nodes. They name images, but nothing of what is in them.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, Literal


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
