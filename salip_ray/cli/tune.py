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
    Task,
    make_config,
    storage_option,
    storage_options,
)
from salip_ray.wording import counted


def tune(
    images: Annotated[str, typer.Argument(help="Images, as for label.")],
    references: Annotated[
        str, typer.Argument(help="Folder of masks (same stem as the image), or index.csv.")
    ],
    config: Task,
    output: Annotated[
        str, typer.Option(help="New or empty location, or a search to resume.")
    ] = "tuning-output",
    trials: Annotated[int, typer.Option(min=2, help="Number of recipes to try.")] = 50,
    limit: Annotated[
        int,
        typer.Option("--images", min=1, help="Number of images to try them on, drawn by the seed."),
    ] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML file of the fields to search: choices, or low and high."
        ),
    ] = None,
    preset: Preset = None,
    assignments: Set = None,
    quiet: Quiet = False,
    input_option: InputOption = None,
    output_option: OutputOption = None,
    reference_option: Annotated[list[str] | None, storage_option("REFERENCES")] = None,
) -> None:
    """Search for the recipe that labels IMAGES best, as SaLIP does at test time.

    Writes tuned.yaml (for label --config), trials.csv, tuning.svg and tuning.json. tuned.yaml names
    the images that the search used, and salip-ray evaluate leaves them out of the scores. If the
    search is stopped, run the same command again to resume.

    Example: salip-ray tune ./images ./masks --config lungs --trials 50 --images 20
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
    from salip_ray.output import layout
    from salip_ray.tuning import search as tuning

    console = Console(quiet=quiet)
    result = tuning.tune(
        images,
        references,
        output,
        settings,
        space=chosen,
        trials=trials,
        limit=limit,
        seed=seed,
        reference_options=options,
        report=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
    )
    best, untuned = result["best"], result["untuned"]["dice"]
    changes = ", ".join(f"{field}={value}" for field, value in best["changes"].items())
    typer.echo(
        f"best: trial {best['trial']}, Dice {best['dice']:.4f} (untuned: {untuned:.4f}) on the "
        f"{counted(len(result['images']), 'image')} of the search\n"
        f"changes: {changes or 'none'}\nrecipe: {output.rstrip('/')}/{layout.TUNED_TASK}"
    )
