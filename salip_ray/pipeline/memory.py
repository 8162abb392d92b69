"""When memory runs out, and actors that are replaced before it does."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator

_CPU_ALLOCATOR = ("DefaultCPUAllocator", "not enough memory", "Insufficient memory")
_DELIVERY_SECONDS = 2.0  # for the last batch's blocks to be handed over


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory, of a device or of the host, ran out."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    # Torch's allocator of the host and OpenCV's raise errors of no class of their own.
    said = str(problem)
    return isinstance(problem, Exception) and any(sign in said for sign in _CPU_ALLOCATOR)


def free_memory(device: str) -> None:
    """Let go of what a failed try left, on the host and on the device."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


class Recycler:
    """Ends this process between two batches once it has done so many images.

    For libraries that leak: Ray starts the actor anew, and hands it what was waiting.

    Args:
        after: images; None never ends it.
    """

    def __init__(self, after: int | None) -> None:
        self._after, self._done = after, 0
        self._busy = threading.Lock()

    @contextlib.contextmanager
    def busy(self, images: int) -> Iterator[None]:
        """Hold the process for the time of a batch."""
        with self._busy:
            yield
            self._done += images
        if self._after is not None and self._done >= self._after:
            threading.Thread(target=self._end, name="recycle", daemon=True).start()

    def _end(self) -> None:
        time.sleep(_DELIVERY_SECONDS)
        with self._busy:  # a batch that has begun meanwhile is finished first
            os._exit(0)
