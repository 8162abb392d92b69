"""GPUs that fail: detect them before the first row, and end a worker whose GPU is broken."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from salip_ray.errors import ResourceError
from salip_ray.pipeline.workers.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch


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
