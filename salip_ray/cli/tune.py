"""``salip-ray tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from salip_ray.cli.options import (
    InputOption,
    OutputOption,
    Preset,
    Quiet,
    Set,
    make_config,
    storage_options,
)


def tune(
    images: Annotated[str, typer.Argument(help="Images, as for label.")],
    references: Annotated[
        str, typer.Argument(help="Folder of masks (same stem as the image) or index.csv.")
    ],
    config: Annotated[
        str,
        typer.Option(
            metavar="TASK", help="What to label: lungs, brain, fetal_head, or a YAML file."
        ),
    ],
    output: Annotated[
        str, typer.Option(help="New or empty location, or one to go on with.")
    ] = "tuning-output",
    trials: Annotated[int, typer.Option(min=2, help="Recipes to try.")] = 50,
    limit: Annotated[
        int, typer.Option("--images", min=1, help="Images to try them on, drawn by the seed.")
    ] = 20,
    seed: int = 0,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What may change: field: [choices] or {low:, high:}."),
    ] = None,
    preset: Preset = None,
    assignments: Set = None,
    quiet: Quiet = False,
    input_option: InputOption = None,
    output_option: OutputOption = None,
    reference_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="The same for REFERENCES."),
    ] = None,
) -> None:
    """Search for the recipe that labels IMAGES best, as SaLIP does at test time.

    Writes tuned.yaml, which label --config takes, trials.csv, tuning.svg and tuning.json. The
    images that are tuned on are named in them, and salip-ray evaluate leaves them out of every
    score of labels made with tuned.yaml. Stopped or killed, the same command goes on.
    """
    settings = make_config(
        config,
        preset=preset,
        assignments=assignments,
        modes=["cascade"],
        input_options=input_option,
        output_options=output_option,
    )
    from salip_ray.tuning.space import default_space, read_space

    chosen = default_space(settings) if space is None else read_space(space)
    options = storage_options("reference", reference_option)
    from salip_ray.tuning import search as tuning

    console = Console(quiet=quiet)
    found = tuning.tune(
        images,
        references,
        output,
        settings,
        space=chosen,
        trials=trials,
        limit=limit,
        seed=seed,
        reference_options=options,
        say=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
    )
    best, given = found["best"], found["untuned"]["dice"]
    changes = ", ".join(f"{field}={value}" for field, value in best["changes"].items())
    typer.echo(
        f"best: trial {best['trial']}, Dice {best['dice']:.4f} (as given {given:.4f}) on the "
        f"{len(found['images'])} images it was chosen on\n"
        f"changes: {changes or 'none'}\nrecipe: {output.rstrip('/')}/{tuning.TUNED}"
    )
