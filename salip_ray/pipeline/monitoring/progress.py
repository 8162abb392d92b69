"""Show a running job to the user: live bars in a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
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
from salip_ray.pipeline.monitoring.monitor import Snapshot
from salip_ray.wording import counted

_LIVE_SECONDS, _LINE_SECONDS = 0.5, 60.0
_COMMIT = "commit"


@dataclass(frozen=True)
class Workload:
    """The images of a run, the stages that process them, and the shards that they fill."""

    stages: Sequence[str]
    images: int
    shards: int

    def is_done(self) -> Snapshot:
        """Return the counts at the end of a run that succeeded."""
        return Snapshot(rows=dict.fromkeys(self.stages, self.images), committed=self.shards)


class ProgressReporter:
    """Show lines and progress on stderr.

    Args:
        quiet: show nothing; errors are raised, not shown.
        console: where to show it; stderr by default.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, quiet=quiet, highlight=False)

    def report(self, *lines: str) -> None:
        """Show lines unchanged."""
        for line in lines:
            self._console.print(line, markup=False, soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """Show a table or another object of rich."""
        self._console.print(renderable)

    def always_report(self, line: str) -> None:
        """Print one line, with ``quiet`` as well."""
        Console(stderr=True, highlight=False).print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def watch(self, work: Workload, snapshot: Callable[[], Snapshot]) -> Iterator[None]:
        """Show the counts of ``snapshot`` while the context is active, and at its end.

        If the context ends without an error, all work is done: the last tallies may still be on
        their way to the monitor, so the end does not depend on them.
        """
        if self._console.quiet:
            yield
            return
        over = threading.Event()
        final: list[Snapshot] = []

        def latest() -> Snapshot:
            return final[0] if final else snapshot()

        show = self._show_bars if self._console.is_terminal else self._show_lines
        watcher = threading.Thread(
            target=show, args=(work, latest, over), name="progress", daemon=True
        )
        watcher.start()
        try:
            yield
            final.append(work.is_done())
        finally:
            over.set()
            watcher.join(timeout=10)

    def _show_bars(
        self, work: Workload, snapshot: Callable[[], Snapshot], over: threading.Event
    ) -> None:
        bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        tasks = {
            stage: bars.add_task(stage, total=work.images, unit="images") for stage in work.stages
        }
        commits = bars.add_task(_COMMIT, total=work.shards, unit="shards")
        with bars:
            for now in _snapshots(snapshot, over, _LIVE_SECONDS):
                for stage, task in tasks.items():
                    bars.update(task, completed=min(work.images, now.rows.get(stage, 0)))
                bars.update(commits, completed=now.committed)

    def _show_lines(
        self, work: Workload, snapshot: Callable[[], Snapshot], over: threading.Event
    ) -> None:
        start, before = time.monotonic(), Pace(0.0, 0)
        for now in _snapshots(snapshot, over, _LINE_SECONDS):
            rows = {stage: min(work.images, now.rows.get(stage, 0)) for stage in work.stages}
            pace = Pace(time.monotonic() - start, min(rows.values(), default=0))
            by_stage = ", ".join(f"{stage} {count:,}" for stage, count in rows.items())
            self.report(
                f"[{pace.seconds:.0f} s] {by_stage} of {counted(work.images, 'image')}; "
                f"{now.committed:,} of {counted(work.shards, 'shard')} committed"
                f"{pace.since(before, work.images)}"
            )
            before = pace


@dataclass(frozen=True)
class Pace:
    """The number of images that all stages were done with after so many seconds."""

    seconds: float
    images: int

    def since(self, before: Pace, total: int) -> str:
        """Return the rate since ``before`` and the time left at this rate, or an empty string."""
        images, seconds = self.images - before.images, self.seconds - before.seconds
        if images <= 0 or seconds <= 0:
            return ""
        rate = images / seconds
        left = max(0, total - self.images) / rate
        return f"; {rate:,.1f} images/s" + (f", {left / 60:,.0f} min left" if left >= 60 else "")


def _snapshots(
    snapshot: Callable[[], Snapshot], over: threading.Event, every: float
) -> Iterator[Snapshot]:
    """Yield the counts at intervals, and once more at the end."""
    while True:
        last = over.wait(every)
        with contextlib.suppress(Exception):  # a job does not fail because it cannot be watched
            yield snapshot()
        if last:
            return


def summary_table(summary: Summary) -> Table:
    """Return the counts of a job as a table for a terminal."""
    table = Table()
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
        rate = f"{spent.images_per_second:,.1f}/s per worker" if spent.images_per_second else ""
        table.add_row(f"{stage}: {spent.seconds:,.1f} s", "", rate)
    return table
