"""``salip-ray show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salip_ray.cli.options import InputOption, Preset, Set, Task, make_config
from salip_ray.errors import InputError, OutputError
from salip_ray.wording import counted


def show(
    image: Annotated[str, typer.Argument(help="One image; local or a URI.")],
    config: Task,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write (default: NAME.walk.png).")
    ] = None,
    slice_: Annotated[
        int | None,
        typer.Option("--slice", min=0, help="Slice, frame or page of the file, from 0."),
    ] = None,
    preset: Preset = None,
    assignments: Set = None,
    input_option: InputOption = None,
) -> None:
    """Draw the stages of the cascade for IMAGE, or for one slice of it, without Ray.

    The figure shows SAM's candidates, their crops in CLIP's order with scores, the boxes of the
    retrieved candidates, and the label.

    Example: salip-ray show brain.nii.gz --slice 45 --config brain
    """
    settings = make_config(
        config,
        preset=preset,
        assignments=assignments,
        modes=["cascade"],
        input_options=input_option,
    )
    from salip_ray.sources.decode import only_picture, open_stack, picture_at
    from salip_ray.sources.fetch import fetch_all
    from salip_ray.sources.formats.names import stem
    from salip_ray.sources.locations import public_uri

    (data,) = fetch_all([image], settings.storage.input, max_bytes=settings.image.max_bytes)
    if isinstance(data, Exception):
        raise data
    stack = open_stack(data, image, settings.image)
    if slice_ is None and stack.count > 1:
        raise InputError(
            f"{public_uri(image)} holds {counted(stack.count, stack.kind)}: "
            f"choose one with --slice 0 to {stack.count - 1}"
        )
    pixels = only_picture(stack) if slice_ is None else picture_at(stack, slice_)
    from salip_ray.cascade.cascade import Cascade
    from salip_ray.report.cascade_steps import draw_steps, run_with_steps

    steps = run_with_steps(Cascade(settings), pixels)
    suffix = "" if slice_ is None else f"-{slice_:04d}"
    path = png or Path(f"{stem(public_uri(image))}{suffix}.walk.png")
    name = public_uri(image).rpartition("/")[2] + (f" [{slice_}]" if suffix else "")
    labels = [spec.label for spec in settings.task.classes]
    try:
        draw_steps(steps, labels, f"{name}: {settings.task.name}", path)
    except OSError as error:
        raise OutputError(f"--png {path} cannot be written: {error.strerror}") from None
    for item in steps.result.outcomes:
        typer.echo(f"{item.label}: {item.outcome}{f' ({item.reason})' if item.reason else ''}")
    typer.echo(f"picture: {path}")
