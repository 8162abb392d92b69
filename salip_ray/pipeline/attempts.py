"""Which image a worker died on, so that one that kills its workers is given up and not tried again.

A worker that dies takes its batch with it, and Ray hands the batch to the next one, for ever. So
each worker keeps a note of the image it is at, in a file of its own that it holds locked; the lock
goes with the process, however it ends. Whoever comes next on that node finds the note without a
lock, and tells the monitor, which counts. Notes cost a write of a few bytes an image; the monitor
is asked at most once a second. A driver that is killed takes the count with it: the next run begins
anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salip_ray.pipeline.monitor import Reporter

#: Workers that may die on an image before it is given up.
MOST_DEATHS = 3
_NOTE_BYTES = 64
_STALE_SECONDS = 86_400.0


class WorkerDiedError(RuntimeError):
    """Workers died on this image, again and again."""

    def __init__(self, deaths: int) -> None:
        super().__init__(
            f"{deaths} workers died on this image, the last of its tries: out of memory, or a "
            "crash in a library; the logs of Ray say which"
        )


class Attempts:
    """The notes of one worker.

    Args:
        reporter: the line to the monitor that counts; without a monitor nothing is noted.
        folder: where the workers of this node keep their notes.
        every: for how many seconds an answer of the monitor is good. An image may so be tried once
            more than it should, never without end.
    """

    def __init__(self, reporter: Reporter, folder: Path, every: float = 1.0) -> None:
        self._reporter, self._folder, self._every = reporter, folder, every
        self._note: int | None = None
        self._deaths: Mapping[str, int] = {}
        self._asked = -math.inf

    def deaths(self) -> Mapping[str, int]:
        """How many workers died on each image; those without a death are left out."""
        if self._reporter.counts and time.monotonic() >= self._asked + self._every:
            for image_id in self._died():
                self._reporter.died(image_id)
            self._deaths = self._reporter.deaths()
            self._asked = time.monotonic()
        return self._deaths

    @contextlib.contextmanager
    def at(self, image_id: str) -> Iterator[None]:
        """Note that this worker is at an image, for the time of a block."""
        if not self._reporter.counts:
            yield
            return
        note = self._open()
        if note is not None:
            os.pwrite(note, image_id.encode()[:_NOTE_BYTES].ljust(_NOTE_BYTES), 0)
        try:
            yield
        finally:
            if note is not None:
                os.pwrite(note, b" " * _NOTE_BYTES, 0)

    def _open(self) -> int | None:
        """The file of this process, locked; it gets its name only then."""
        if self._note is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                _drop_stale(self._folder)
                name = f"{os.getpid()}-{time.time_ns()}"
                hidden = self._folder / f".{name}"
                self._note = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._note, fcntl.LOCK_EX)
                hidden.rename(self._folder / name)
            except OSError:  # a full disk: the job goes on without
                return None
        return self._note

    def _died(self) -> list[str]:
        """The images that dead workers of this node were at; their notes are taken away."""
        found = []
        for path in self._folder.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                note = os.open(path, os.O_RDWR)
                try:
                    fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(note).st_nlink:  # else another worker was here first
                        path.unlink()
                        found.append(os.read(note, _NOTE_BYTES).decode().strip())
                finally:
                    os.close(note)
        return [image_id for image_id in found if image_id]


@cache
def attempts_of(reporter: Reporter) -> Attempts:
    """The notes of this process for a run; tasks of one worker share them."""
    return Attempts(reporter, notes_folder(reporter.notes))


def notes_folder(run: str) -> Path:
    """Where the workers of a node keep their notes of a run."""
    return Path(tempfile.gettempdir()) / f"salip-ray-{os.getuid()}" / run


def _drop_stale(folder: Path) -> None:
    """Remove the notes of runs that ended long ago on this node."""
    for other in folder.parent.iterdir():
        if other != folder and time.time() - other.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
