"""Resolve ``run.device`` and ``run.precision`` to what a model loader needs."""

from __future__ import annotations

import torch

from salip_ray.config import Precision
from salip_ray.errors import ConfigError


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device of ``run.device``; ``"auto"`` is CUDA if available, else the CPU.

    Raises:
        ConfigError: a CUDA device is requested and torch sees none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"run.device is {str(device)!r}, but torch sees no CUDA device here")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Resolve ``run.precision``; ``"auto"`` is ``fast`` on a GPU and ``exact`` on a CPU."""
    if precision == "auto":
        return "fast" if device.type == "cuda" else "exact"
    return "fast" if precision == "fast" else "exact"
