"""Options and progress of a training run, for SAM and CLIP."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salip_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """One training run. Exactly one of `minutes` and `steps` bounds it.

    Attributes:
        out: folder of the run: phantom banks, checkpoint, log and exported weights.
        minutes: wall-clock budget, summed over resumed parts of the run.
        steps: number of optimiser steps instead of minutes (reproducible bit by bit).
        seed: seeds initial weights, phantom order, augmentation and prompts.
        device: a torch device, "cpu" or "cuda".
        threads: torch's CPU threads.
        batch_size: images per step.
        bank_size: training phantoms of each kind in the bank.
        tune_size: tuning phantoms of each kind for the scores in the log.
        checkpoint_minutes: minutes between two checkpoints.
        init: exported weights to start from, instead of random ones. The
            optimiser, the schedule and the auxiliary heads start anew.
        peak_rate: highest learning rate, instead of the recipe's; lower for a run with `init`.
        evenly: with `init`, draw all phantoms or groups alike, without the search for hard ones.
    """

    out: Path
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int = 2
    batch_size: int = 8
    bank_size: int = 3000
    tune_size: int = 24
    checkpoint_minutes: float = 3.0
    init: Path | None = None
    peak_rate: float | None = None
    evenly: bool = False

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ConfigError(
                f"training needs either minutes or steps, got minutes={self.minutes} and "
                f"steps={self.steps}: give exactly one of them"
            )
        if self.evenly and self.init is None:
            raise ConfigError(
                "evenly needs init: a run from random weights draws all phantoms alike"
            )
        counts = ("minutes", "steps", "threads", "batch_size", "bank_size", "tune_size")
        for name in (*counts, "peak_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}: it must be greater than 0")

    def recipe(self) -> dict[str, Any]:
        """Return the options that a resumed run must share, as plain values."""
        names = ("seed", "batch_size", "bank_size", "peak_rate", "evenly")
        init = None if self.init is None else hashlib.sha256(self.init.read_bytes()).hexdigest()
        return {**{name: getattr(self, name) for name in names}, "init": init}


class Progress:
    """Position in a run's budget of minutes or steps, from 0 (start) to 1 (spent).

    `spent_seconds` are those of earlier parts of a resumed run. With a budget of minutes the
    learning rate follows the clock, so a slow machine still completes its cosine.
    """

    def __init__(self, options: TrainOptions, *, step: int = 0, spent_seconds: float = 0.0) -> None:
        self.step = step
        self._options = options
        self._earlier = spent_seconds
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds trained so far, including earlier parts."""
        return self._earlier + time.monotonic() - self._started

    @property
    def fraction(self) -> float:
        """Return the share of the budget that is spent, 0 to 1."""
        if self._options.steps is not None:
            return min(1.0, self.step / self._options.steps)
        assert self._options.minutes is not None
        return min(1.0, self.seconds / (60.0 * self._options.minutes))

    @property
    def done(self) -> bool:
        """Return True if the budget is spent."""
        return self.fraction >= 1.0


def warmup_cosine(fraction: float, *, peak: float, warmup: float = 0.03) -> float:
    """Return the learning rate at `fraction` of the run: linear to `peak`, then a cosine to 1 %."""
    if fraction < warmup:
        return peak * (0.02 + 0.98 * fraction / warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * (fraction - warmup) / (1.0 - warmup)))
    return peak * (0.01 + 0.99 * cosine)
