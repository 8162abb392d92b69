"""What a person sees while a job runs: live bars in a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from salip_ray.output.summary import Summary
from salip_ray.pipeline.monitor import Snapshot

_EVERY_LIVE, _EVERY_LINE = 0.5, 60.0  # seconds
COMMIT = "commit"


class ProgressReporter:
    """Says things on stderr, or nothing at all.

    Args:
        quiet: say nothing; errors are raised, not said.
        console: where to; stderr by default.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, quiet=quiet, highlight=False)

    def report(self, line: str) -> None:
        """Print one line as it is."""
        self.console.print(line, markup=False, soft_wrap=True)

    def always_report(self, line: str) -> None:
        """Print one line, with ``quiet`` as well."""
        Console(stderr=True, highlight=False).print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def watching(
        self, snapshot: Callable[[], Snapshot], stages: Sequence[str], rows: int, shards: int
    ) -> Iterator[None]:
        """Show the progress of ``rows`` images through ``stages`` and of ``shards`` commits."""
        if self.console.quiet:
            yield
            return
        over = threading.Event()
        show = self._live if self.console.is_terminal else self._lines
        watcher = threading.Thread(
            target=show, args=(snapshot, stages, rows, shards, over), name="progress", daemon=True
        )
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join(timeout=10)

    def _live(
        self,
        snapshot: Callable[[], Snapshot],
        stages: Sequence[str],
        rows: int,
        shards: int,
        over: threading.Event,
    ) -> None:
        bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        tasks = {stage: bars.add_task(stage, total=rows, unit="images") for stage in stages}
        commits = bars.add_task(COMMIT, total=shards, unit="shards")
        with bars:
            for now in _snapshots(snapshot, over, _EVERY_LIVE):
                for stage, task in tasks.items():
                    bars.update(task, completed=min(rows, now.rows.get(stage, 0)))
                bars.update(commits, completed=now.committed)

    def _lines(
        self,
        snapshot: Callable[[], Snapshot],
        stages: Sequence[str],
        rows: int,
        shards: int,
        over: threading.Event,
    ) -> None:
        start, before = time.monotonic(), Pace(0.0, 0)
        for now in _snapshots(snapshot, over, _EVERY_LINE):
            seconds = time.monotonic() - start
            counts = ", ".join(f"{stage} {now.rows.get(stage, 0):,}" for stage in stages)
            here = Pace(seconds, min((now.rows.get(stage, 0) for stage in stages), default=0))
            self.report(
                f"[{seconds:.0f} s] {counts} of {rows:,} images; {now.committed:,} of {shards:,} "
                f"shards committed{here.since(before, rows)}"
            )
            before = here


@dataclass(frozen=True)
class Pace:
    """How many images were through all stages after so many seconds."""

    seconds: float
    images: int

    def since(self, before: Pace, rows: int) -> str:
        """The rate since then and the time that is left at this rate, in words; or nothing."""
        images, seconds = self.images - before.images, self.seconds - before.seconds
        if images <= 0 or seconds <= 0:
            return ""
        rate = images / seconds
        left = max(0, rows - self.images) / rate
        return f"; {rate:,.1f} images/s" + (f", {left / 60:,.0f} min left" if left >= 60 else "")


def _snapshots(
    snapshot: Callable[[], Snapshot], over: threading.Event, every: float
) -> Iterator[Snapshot]:
    """What the monitor says from time to time, and once more when all is over."""
    while True:
        last = over.wait(every)
        with contextlib.suppress(Exception):  # a job does not fail because nobody can watch it
            yield snapshot()
        if last:
            return


def summary_table(summary: Summary) -> Table:
    """The summary of a job for a terminal."""
    table = Table(title=f"{summary.images:,} images in {summary.output}", title_justify="left")
    table.add_column("what")
    table.add_column("images", justify="right")
    table.add_column("share", justify="right")
    for status, count in summary.status.items():
        table.add_row(f"status {status}", f"{count:,}", f"{count / summary.images:.1%}")
    for label, outcomes in summary.outcomes.items():
        for outcome, count in outcomes.items():
            table.add_row(f"{label}: {outcome}", f"{count:,}", f"{count / summary.images:.1%}")
    for stage, count in summary.errors.items():
        table.add_row(f"errors in {stage}", f"{count:,}", f"{count / summary.images:.1%}")
    for stage, spent in summary.stages.items():
        rate = f"{spent.images_per_second:,.1f}/s a worker" if spent.images_per_second else ""
        table.add_row(f"{stage}: {spent.seconds:,.1f} s", "", rate)
    return table
