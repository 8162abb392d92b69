"""Failures that are not errors of a row: dying workers, memory, broken devices, leaks.

Attempts. A worker that dies takes its batch with it, and Ray gives the batch to the next worker,
forever. So each worker notes the image that it processes, in its own locked file; the lock ends
with the process. The next worker on that node finds the note without a lock, and reports the death
to the monitor, which counts. An image on which several workers died is given up. A note costs a
write of a few bytes per image, and the monitor is asked at most once a second. A driver that is
killed loses the counts: the next run starts from zero.

Memory. If it runs out, the actor does the row again in smaller batches. A worker that recycles
itself between batches frees what a library has leaked. On CPUs, glibc returns tensors of more than
32 MiB to the system as soon as they are freed, and gets them again, page by page and zeroed, for
the next layer, which can take as long as the arithmetic: actors keep the memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from salip_ray.errors import ResourceError
from salip_ray.pipeline.temporary import open_note, private_folder, remove_stale_folders

if TYPE_CHECKING:
    import torch

    from salip_ray.pipeline.monitor import StageReporter

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


# Messages of errors without a class: from the host allocators of torch and OpenCV, and from CUDA if
# another library than torch asked for memory.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "Insufficient memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_DELIVERY_SECONDS = 2.0  # for the blocks of the last batch to be delivered


def is_out_of_memory(problem: BaseException) -> bool:
    """Return True if an exception reports that memory of a device or of the host ran out."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    message = str(problem)
    return isinstance(problem, Exception) and any(sign in message for sign in _OUT_OF_MEMORY)


def is_broken_device(problem: BaseException) -> bool:
    """Return True if an exception reports that a GPU fails for the rest of this process."""
    is_torchs = type(problem).__name__ == "AcceleratorError"
    is_cudas = isinstance(problem, RuntimeError) and str(problem).startswith("CUDA error")
    return (is_torchs or is_cudas) and not is_out_of_memory(problem)


def require_working(device: torch.device) -> None:
    """Compute something on a GPU, so that a broken one fails before any row.

    Raises:
        ResourceError: the device fails, such as one that torch has no kernels for.
    """
    if device.type == "cpu":
        return
    import torch

    try:
        torch.ones(8, device=device).sum().item()  # item() waits for the kernel, and its error
    except RuntimeError as problem:
        if is_out_of_memory(problem):  # it passes, and rows are retried
            return
        name = torch.cuda.get_device_name(device)
        message = str(problem).partition("\n")[0]
        raise ResourceError(
            f"{device} ({name}) fails at a sum of 8 numbers ({message}): install a torch with "
            "kernels for it, use another GPU, or set run.device=cpu"
        ) from problem


def end_worker() -> None:
    """End this process at once, as a crash would: Ray restarts the actor."""
    os._exit(1)


def free_memory(device: str) -> None:
    """Free the memory of a failed attempt, on the host and on the device."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


class Recycler:
    """End this process between two batches, once it has processed a number of images.

    For libraries that leak: Ray restarts the actor and gives it the waiting batches.

    Args:
        after: number of images; None never ends it.
    """

    def __init__(self, after: int | None) -> None:
        self._after, self._done = after, 0
        self._busy = threading.Lock()

    @contextlib.contextmanager
    def busy(self, images: int) -> Iterator[None]:
        """Keep the process alive for the time of a batch."""
        with self._busy:
            yield
            self._done += images
        if self._after is not None and self._done >= self._after:
            threading.Thread(target=self._end, name="recycle", daemon=True).start()

    def _end(self) -> None:
        time.sleep(_DELIVERY_SECONDS)
        with self._busy:  # a batch that started in the meantime is finished first
            os._exit(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_MOST = 2**31 - 1  # an int: allocations of 2 GiB and more are still mapped


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocations, up to its peak.

    As ``GLIBC_TUNABLES=glibc.malloc.mmap_threshold=...:glibc.malloc.trim_threshold=...``, which
    must be set before a process starts, but Ray starts the workers. Without glibc nothing happens.

    Returns:
        True if the allocator took the settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # One arena: a thread's own cannot hold large blocks, and would map them all the same.
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _MOST), (_M_TRIM_THRESHOLD, _MOST))
    return all(mallopt(name, value) == 1 for name, value in settings)
