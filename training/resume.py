"""Training checkpoints on disk: written in one step, read without unpickling code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from salip_ray.errors import WeightsError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and containers of them. A kill leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(dict(state), partial)
    partial.replace(path)


def load_checkpoint(path: Path, *, seed: int) -> dict[str, Any] | None:
    """Return what `save_checkpoint` wrote, on the CPU; None if there is no file.

    Raises:
        WeightsError: the file is not a checkpoint, or belongs to a run with another seed.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises whatever the broken bytes trigger
        raise WeightsError(f"training checkpoint {path} cannot be read: {error}") from None
    if state["seed"] != seed:
        raise WeightsError(
            f"training checkpoint {path} is of a run with seed {state['seed']}, not {seed}: "
            "give that seed, or another output folder"
        )
    return state
