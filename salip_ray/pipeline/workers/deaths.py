"""Give up an image, a file or a volume on which several workers died.

A worker that dies takes its batch with it, and Ray gives the batch to the next worker, forever. So
each worker notes what it processes, in a locked file; the lock ends with the process. The next
worker on that node finds the note without a lock, and reports the death to the monitor, which
counts. What several workers died on is given up:

- a file, while it is fetched or opened: all of its slices are given up at once;
- an image, while it is decoded or goes through a stage;
- a volume, if workers died on several of its slices: a CT must not cost three workers per slice.

Files that are fetched together are noted together. A death then counts for none of them, and each
is fetched alone from there on. A note costs a write per image, and the monitor is asked at most
once a second. A driver that is killed loses the counts: the next run starts from zero.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from salip_ray.pipeline.workers.temporary import open_note, private_folder, remove_stale_folders

if TYPE_CHECKING:
    from salip_ray.pipeline.monitoring.monitor import StageReporter

#: Workers that may die on an image, or on opening a file, before it is given up.
MOST_DEATHS = 3
#: Workers that may die on the slices of a volume before the rest of them are given up.
MOST_DEATHS_IN_VOLUME = 15
_NOTE_BYTES = 2048  # for the keys of all files that are fetched together
_VOLUME = "volume:"  # the name of a volume may also be the key of its file


class WorkerDiedError(RuntimeError):
    """Several workers died while they processed this image."""

    def __init__(self, deaths: int, what: str = "on this image") -> None:
        super().__init__(
            f"{deaths} workers died {what}, so it was given up: see Ray's worker logs for the "
            "cause (memory, or a crash in a library)"
        )


def given_up(
    deaths: Mapping[str, int], image_id: str, volume: str | None = None, file: str | None = None
) -> WorkerDiedError | None:
    """Return why an image is not processed any more, or None if it is.

    Args:
        deaths: :meth:`Attempts.deaths`.
        image_id: the image.
        volume: its volume, if it is a slice.
        file: the key of its file, if the file holds several images.
    """
    if file is not None and (died := deaths.get(file, 0)) >= MOST_DEATHS:
        return WorkerDiedError(died, "while they opened the file of this image")
    if (died := deaths.get(image_id, 0)) >= MOST_DEATHS:
        return WorkerDiedError(died)
    if volume and (died := deaths.get(f"{_VOLUME}{volume}", 0)) >= MOST_DEATHS_IN_VOLUME:
        return WorkerDiedError(died, "on slices of the volume of this image")
    return None


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

    def deaths(self, *, now: bool = False) -> Mapping[str, int]:
        """Return how many workers died on each image, file and volume that a dead worker noted.

        A count of 0 means that it was noted together with others.

        Args:
            now: ask the monitor, however recent its last answer is.
        """
        if self._reporter.counts and (now or time.monotonic() >= self._asked + self._every):
            for note in self._notes_of_the_dead():
                self._reporter.died(note)
            self._deaths = self._reporter.deaths()
            self._asked = time.monotonic()
        return self._deaths

    def at(self, key: str, volume: str | None = None) -> AbstractContextManager[None]:
        """Note that this worker processes an image or opens a file, for the time of a block.

        Args:
            key: the id of the image, or the key of the file; empty for padding.
            volume: of the image, if it is a slice.
        """
        return self._noted(f"{key} {_VOLUME}{volume}" if volume and key else key)

    def at_one_of(self, keys: Iterable[str]) -> AbstractContextManager[None]:
        """Note that this worker fetches some files, for the time of a block."""
        return self._noted("\n".join(keys))

    @contextlib.contextmanager
    def _noted(self, text: str) -> Iterator[None]:
        if not self._reporter.counts:
            yield
            return
        note = self._open()
        if note is not None:
            os.pwrite(note, text.encode()[:_NOTE_BYTES].ljust(_NOTE_BYTES), 0)
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

    def _notes_of_the_dead(self) -> list[str]:
        """Return the notes of dead workers of this node, and delete them."""
        notes = []
        for path in self._folder.glob("[0-9]*"):
            note = open_note(path)
            if note is None:
                continue
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(note).st_nlink:  # else another worker was here first
                        path.unlink()
                        notes.append(os.read(note, _NOTE_BYTES).decode().strip())
                finally:
                    os.close(note)
        return [text for text in notes if text]


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
