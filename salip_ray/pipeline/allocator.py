"""The memory of an actor on a CPU.

glibc gives tensors of more than 32 MiB back to the system the moment they are freed, and gets them
again, page by page and zeroed, for the next layer: faults can take as long as the arithmetic. A
worker that does the same work over and over does better to keep what it freed.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_MOST = 2**31 - 1  # an int: allocations of 2 GiB and more are still mapped


def keep_freed_memory() -> bool:
    """Have this process keep freed memory for its next allocations, up to its peak.

    As ``GLIBC_TUNABLES=glibc.malloc.mmap_threshold=...:glibc.malloc.trim_threshold=...``, which
    must be set before a process starts; workers of a cluster are started by others. Where the C
    library is not glibc, nothing happens.

    Returns:
        Whether the allocator took the settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # One arena: a thread's own cannot hold large blocks, and would map them all the same.
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _MOST), (_M_TRIM_THRESHOLD, _MOST))
    return all(mallopt(name, value) == 1 for name, value in settings)
