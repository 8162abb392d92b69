"""Memory that runs out, devices that break, and actors that are replaced before memory runs out."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from salip_ray.errors import ResourceError

if TYPE_CHECKING:
    import torch

# Errors of no class of their own: of torch's allocator of the host, of OpenCV's, and of CUDA where
# it was not torch that asked for memory.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "Insufficient memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_DELIVERY_SECONDS = 2.0  # for the last batch's blocks to be handed over


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory, of a device or of the host, ran out."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    said = str(problem)
    return isinstance(problem, Exception) and any(sign in said for sign in _OUT_OF_MEMORY)


def is_broken_device(problem: BaseException) -> bool:
    """Whether an exception says that a GPU failed this process, which it then does for good."""
    is_torchs = type(problem).__name__ == "AcceleratorError"
    is_cudas = isinstance(problem, RuntimeError) and str(problem).startswith("CUDA error")
    return (is_torchs or is_cudas) and not is_out_of_memory(problem)


def require_working(device: torch.device) -> None:
    """Compute something on a GPU, before a row pays for one that cannot.

    Raises:
        ResourceError: the device fails, such as one that torch has no kernels for.
    """
    if device.type == "cpu":
        return
    import torch

    try:
        torch.ones(8, device=device).sum().item()  # item() waits for the kernel, and its error
    except RuntimeError as problem:
        if is_out_of_memory(problem):  # it passes: the rows have their own way with it
            return
        name = torch.cuda.get_device_name(device)
        said = str(problem).partition("\n")[0]
        raise ResourceError(
            f"{device} ({name}) fails at a sum of 8 numbers ({said}): install a torch with "
            "kernels for it, use another GPU, or set run.device=cpu"
        ) from problem


def end_worker() -> None:
    """End this process at once, as a crash would: Ray starts the actor anew, and counts a death."""
    os._exit(1)


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
