"""``salip-ray plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from salip_ray.cli.files import require_no_folder, writing
from salip_ray.cli.options import InputOption, Preset, Set, Task, make_config
from salip_ray.wording import counted


def plan(
    input: Annotated[  # noqa: A002  (the word a person would use)
        str, typer.Argument(help="Folder, prefix, glob, image or manifest; local, s3://, gs://...")
    ],
    config: Task,
    preset: Preset = None,
    assignments: Set = None,
    images: Annotated[
        float, typer.Option(min=1, help="Number of images of the job, as in 1e6.")
    ] = 1e6,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of the cluster.")] = 0,
    cores: Annotated[
        int | None,
        typer.Option(min=1, help="Cores of a cluster without GPUs (default: of this machine)."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of a GPU hour; without GPUs, of a core hour.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Number of images to measure.")] = 8,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read the measurement from FILE if it exists, else save it there."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Task file to write, for label --config.")] = Path(
        "plan.yaml"
    ),
    input_option: InputOption = None,
) -> None:
    """Measure a few images of INPUT on this machine and estimate time and cost of a large job.

    Example: salip-ray plan s3://bucket/xrays --config lungs --images 1e6 --gpus 8 --price 2.50
    """
    require_no_folder("--profile", profile)
    require_no_folder("--output", output)
    settings = make_config(
        config, preset=preset, assignments=assignments, input_options=input_option
    )
    import yaml

    from salip_ray.planning.profile import Profile, measure
    from salip_ray.planning.sizing import size, sized_config

    if profile is not None and profile.is_file():
        measured = Profile.load(profile)
    else:
        measured = measure(input, settings, images=sample)
        if profile is not None:
            with writing(f"--profile {profile}"):
                measured.save(profile)
    sizing = size(measured, images=int(images), gpus=gpus, cores=cores, price=price)
    with writing(f"--output {output}"):
        output.write_text(yaml.safe_dump(sized_config(settings, sizing), sort_keys=False), "utf-8")
    machine = counted(gpus, "GPU") if gpus else counted(cores or measured.cores, "core")
    table = Table(box=box.SIMPLE_HEAD, title=f"{counted(int(images), 'image')} on {machine}")
    table.add_column("item")
    table.add_column("expected", justify="right")
    for stage, spent in measured.seconds.items():
        actors = sizing.pools.get(stage, {}).get("size")
        cell = f"{1000 * spent:,.1f} ms per image"
        table.add_row(stage, f"{cell}, {counted(actors, 'actor')}" if actors else cell)
    table.add_row("images/s", f"{sizing.images_per_second:,.2f}")
    table.add_row("hours", f"{sizing.hours:,.2f}")
    if sizing.cost is not None:
        table.add_row("cost", f"{sizing.cost:,.2f}")
    table.add_row("cores for fetching and writing", f"{sizing.fetch_cores:,.1f}")
    table.add_row("output", f"{sizing.output_bytes / 1e9:,.2f} GB")
    table.add_row("object store", f"{sizing.store_bytes / 1e9:,.2f} GB")
    Console().print(table)
    typer.echo(f"wrote {output}: salip-ray label {input} OUTPUT --config {output}")
