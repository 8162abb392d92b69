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


def load_checkpoint(path: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what `save_checkpoint` wrote, on the CPU; None if there is no file.

    Raises:
        WeightsError: the file is not a checkpoint, or its "run" is not `run`.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises whatever the broken bytes trigger
        raise WeightsError(f"training checkpoint {path} cannot be read: {error}") from None
    stored = state.get("run", {})
    for name, value in run.items():
        if stored.get(name) != value:
            raise WeightsError(
                f"training checkpoint {path} is of a run with {name} {stored.get(name)}, not "
                f"{value}: give that one, or another output folder"
            )
    return state
