"""``salip-ray config``."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.options import (
    InputOption,
    Mode,
    OutputOption,
    Preset,
    Set,
    TaskArgument,
    make_config,
)


def config(
    task: TaskArgument = "lungs",
    preset: Preset = None,
    assignments: Set = None,
    mode: Mode = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print every setting as YAML; secrets are hidden.")
    ] = False,
    input_option: InputOption = None,
    output_option: OutputOption = None,
) -> None:
    """Check a configuration as label does, and print it merged with --show.

    The printed YAML is a complete task file: preset, task and --set are merged, and defaults are
    filled in. Values of storage options are hidden.

    Example: salip-ray config lungs --preset paper-2d --show
    """
    from salip_ray.models.task_check import require_taught_classes

    settings = make_config(
        task,
        preset=preset,
        assignments=assignments,
        modes=mode,
        input_options=input_option,
        output_options=output_option,
    )
    require_taught_classes(settings)
    if show:
        import yaml

        text = yaml.safe_dump(settings.public(), sort_keys=False, allow_unicode=True, width=100)
        typer.echo(text, nl=False)
        return
    labels = ", ".join(spec.label for spec in settings.task.classes)
    own = {"sam": f"SAM: {settings.sam.model}", "clip": f"CLIP: {settings.clip.model}"}
    stages = ("propose", "retrieve", "refine")
    names = [(stage, getattr(settings, stage).model) for stage in stages]
    models = dict.fromkeys(own.get(name, f"{stage}: {name}") for stage, name in names)
    typer.echo(
        f"{settings.task.name}: valid; classes: {labels}; {'; '.join(models)} "
        "(print every setting with --show)"
    )
