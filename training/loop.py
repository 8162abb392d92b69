"""The parts of a training loop that SAM and CLIP share: batches prepared in advance, and a log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from training.options import Progress

log = logging.getLogger(__name__)

T = TypeVar("T")


def prefetched(make: Callable[[int], T], step: int) -> Iterator[T]:
    """Yield `make(step)`, `make(step + 1)` and so on; prepare the next while one is used."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(make, step)
        while True:
            step += 1
            ready, coming = coming.result(), worker.submit(make, step)
            yield ready


def log_figures(path: Path, progress: Progress, figures: Mapping[str, float]) -> None:
    """Append one line with the step, the seconds and the figures to a .jsonl file."""
    line = {"step": progress.step, "seconds": round(progress.seconds, 1)}
    line |= {name: round(value, 5) for name, value in figures.items()}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    log.info("%s", line)
