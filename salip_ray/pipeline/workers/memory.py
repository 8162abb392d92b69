"""Memory of a worker: recognise that it ran out, free it, or retain it for the next allocation.

If memory runs out, the actor does the row again in smaller batches. On CPUs, glibc returns tensors
of more than 32 MiB to the system as soon as they are freed. It gets them again, page by page and
zeroed, for the next layer, which can take as long as the arithmetic: actors retain the memory.
"""

from __future__ import annotations

import ctypes
import gc

# Messages of errors without a class: from the host allocators of torch and OpenCV, and from CUDA if
# another library than torch asked for memory.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "Insufficient memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(problem: BaseException) -> bool:
    """Return True if an exception reports that memory of a device or of the host ran out."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    message = str(problem)
    return isinstance(problem, Exception) and any(sign in message for sign in _OUT_OF_MEMORY)


def free_memory(device: str) -> None:
    """Free the memory of a failed attempt, on the host and on the device."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


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
