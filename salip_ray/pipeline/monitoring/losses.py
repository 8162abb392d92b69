"""End a job whose workers die in sequence while no image is done.

Ray replaces a worker that died, however often. Deaths on an image are counted and end with an error
row (:mod:`salip_ray.pipeline.workers.deaths`). But a worker may die before it takes up an image:
Ray's memory monitor kills it at once, or a library crashes when it is loaded. Such a job would not
end by itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from salip_ray.cluster.ray_private import LostWorker
from salip_ray.wording import counted

#: Workers that may die while no image is done, and the number of looks in which some of them died:
#: a lost node takes many workers at once, and does not end a job.
MOST_LOSSES, MOST_LOOKS = 100, 10
_LOOK_SECONDS = 5.0
_MEMORY_ADVICE = (
    "Use smaller pools (pools.propose.size, pools.retrieve.size, pools.refine.size), a smaller "
    "image.max_bytes, or a machine with more memory"
)


class LossWatch:
    """Compare the workers that died with the images that were done.

    Args:
        lost: returns the workers of the job that died, by id.
        rows_done: returns how many rows the stages of this run processed without an error.
        stop: called once, with the reason to end the job.
        kernel_kills: returns how many processes the kernel of this machine has killed for memory;
            by default :func:`count_kernel_kills`.
    """

    def __init__(
        self,
        lost: Callable[[], Mapping[str, LostWorker]],
        rows_done: Callable[[], int],
        stop: Callable[[str], Any],
        kernel_kills: Callable[[], int] | None = None,
    ) -> None:
        self._lost, self._rows_done, self._stop = lost, rows_done, stop
        self._kernel_kills = kernel_kills or count_kernel_kills
        self._kills_before = self._kernel_kills()
        self._known: dict[str, LostWorker] | None = None  # set by the first look
        self._done: int | None = None
        self._fresh: list[LostWorker] = []
        self._looks = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Look every few seconds, for the time of a block."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(_LOOK_SECONDS):
                with contextlib.suppress(Exception):  # a job does not fail because of its watch
                    if self.look():
                        return

        thread = threading.Thread(target=run, name="losses", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=10)

    def look(self) -> bool:
        """Compare once; return True if the job was told to stop."""
        lost = dict(self._lost())
        known = lost if self._known is None else self._known  # an earlier run may have lost some
        fresh = [worker for key, worker in lost.items() if key not in known]
        self._known = known | lost
        self._fresh += fresh
        self._looks += bool(fresh)
        done = self._done
        with contextlib.suppress(Exception):  # the monitor may be lost as well
            done = self._rows_done()
        if done != self._done:
            self._done, self._fresh, self._looks = done, [], 0
        if len(self._fresh) < MOST_LOSSES or self._looks < MOST_LOOKS:
            return False
        self._stop(_reason(self._fresh, self._kernel_kills() - self._kills_before))
        return True


def count_kernel_kills(counters: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel of this machine has killed for memory; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError):
        for line in counters.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _reason(lost: list[LostWorker], kernel_kills: int) -> str:
    workers = f"{counted(len(lost), 'worker')} died in sequence, and no image was done"
    killed = sum(worker.out_of_memory for worker in lost)
    if 2 * killed >= len(lost):
        return (
            f"{workers}: Ray's memory monitor killed {killed:,} of them, because the memory of a "
            f"machine was nearly used up. {_MEMORY_ADVICE}"
        )
    if kernel_kills > 0:
        processes = counted(kernel_kills, "process", "processes")
        return (
            f"{workers}: the kernel of this machine killed {processes} meanwhile, because its "
            f"memory was used up. {_MEMORY_ADVICE}"
        )
    return (
        f"{workers}. The last one: {lost[-1].detail}. The logs of Ray say more, and "
        "salip-ray doctor checks the installation"
    )
