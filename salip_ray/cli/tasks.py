"""``salip-ray tasks``: the tasks that ship with the package."""

from __future__ import annotations

from itertools import groupby

import typer


def tasks() -> None:
    """List the tasks that ship with the package, by modality.

    Give a name as --config. Tasks of the preset bundled use the models in the package and were
    measured. All others need SAM ViT-H and OpenAI's CLIP, which knows everyday words, and were not
    measured: look at a sample of the labels first.

    Example: salip-ray tasks
    """
    from salip_ray.config import DEFAULT_PRESET, shipped_tasks

    listed = shipped_tasks()
    width = max(len(task.name) for task in listed)
    for modality, group in groupby(listed, key=lambda task: task.modality):
        typer.echo(modality)
        for task in group:
            preset = task.preset or DEFAULT_PRESET
            typer.echo(f"  {task.name:<{width}}  {preset:<8}  {task.image}")
