"""Give up an image on which several workers died.

A worker that dies takes its batch with it, and Ray gives the batch to the next worker, forever. So
each worker notes the image that it processes, in a locked file; the lock ends with the process. The
next worker on that node finds the note without a lock, and reports the death to the monitor, which
counts. An image on which several workers died is given up. A note costs a write of a few bytes per
image, and the monitor is asked at most once a second. A driver that is killed loses the counts: the
next run starts from zero.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from salip_ray.pipeline.workers.temporary import open_note, private_folder, remove_stale_folders

if TYPE_CHECKING:
    from salip_ray.pipeline.monitoring.monitor import StageReporter

#: Workers that may die on an image before it is given up.
MOST_DEATHS = 3
_NOTE_BYTES = 64


class WorkerDiedError(RuntimeError):
    """Several workers died while they processed this image."""

    def __init__(self, deaths: int) -> None:
        super().__init__(
            f"{deaths} workers died on this image, the last of its tries: out of memory, or a "
            "crash in a library; the logs of Ray say which"
        )


class Attempts:
    """The attempt notes of one worker.

    Args:
        reporter: reports deaths to the monitor; without a monitor nothing is noted.
        folder: the folder of the notes of this node.
        every: for how many seconds an answer of the monitor is used. An image may be tried once
            too often, but not forever.
    """

    def __init__(self, reporter: StageReporter, folder: Path, every: float = 1.0) -> None:
        self._reporter, self._folder, self._every = reporter, folder, every
        self._note: int | None = None
        self._deaths: Mapping[str, int] = {}
        self._asked = -math.inf

    def deaths(self) -> Mapping[str, int]:
        """Return how many workers died on each image, for images with at least one death."""
        if self._reporter.counts and time.monotonic() >= self._asked + self._every:
            for image_id in self._died():
                self._reporter.died(image_id)
            self._deaths = self._reporter.deaths()
            self._asked = time.monotonic()
        return self._deaths

    @contextlib.contextmanager
    def at(self, image_id: str) -> Iterator[None]:
        """Note that this worker processes an image, for the time of a block."""
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
        """Return the locked file of this process; it gets its name once it is locked."""
        if self._note is None:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                remove_stale_folders(self._folder.parent, self._folder)
                name = f"{os.getpid()}-{time.time_ns()}"
                hidden = self._folder / f".{name}"
                self._note = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._note, fcntl.LOCK_EX)
                hidden.rename(self._folder / name)
            except OSError:  # a full disk: the job continues without notes
                return None
        return self._note

    def _died(self) -> list[str]:
        """Return the images that dead workers of this node processed, and delete their notes."""
        images = []
        for path in self._folder.glob("[0-9]*"):
            note = open_note(path)
            if note is None:
                continue
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(note).st_nlink:  # else another worker was here first
                        path.unlink()
                        images.append(os.read(note, _NOTE_BYTES).decode().strip())
                finally:
                    os.close(note)
        return [image_id for image_id in images if image_id]


@cache
def attempts_of(reporter: StageReporter) -> Attempts:
    """Return the notes of this process for a run; tasks of one worker share them."""
    return Attempts(reporter, notes_folder(reporter.notes))


def notes_folder(run: str) -> Path:
    """Return the folder in which the workers of a node note what they do for a run.

    Raises:
        ResourceError: the folder is not private to this user.
    """
    return private_folder() / run
