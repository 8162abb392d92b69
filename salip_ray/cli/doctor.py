"""``salip-ray doctor``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from salip_ray.cli.options import InputOption, OutputOption, Preset, Set, Task, make_config

_COLOURS = {"ok": "green", "note": "yellow", "fix": "red"}


def doctor(
    input: Annotated[  # noqa: A002  (the word a person would use)
        str | None, typer.Argument(help="Where the job would read images.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Argument(help="Where the job would write labels; a small object is written there."),
    ] = None,
    config: Task = "lungs",
    preset: Preset = None,
    assignments: Set = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS",
            help="The cluster's job server, as in http://head:8265.",
        ),
    ] = None,
    input_option: InputOption = None,
    output_option: OutputOption = None,
) -> None:
    """Check what a job will need: packages, devices, weights, storage and cluster.

    Each line is ok, a note, or fix with what to do. The exit status is 1 if a job would fail.

    Example: salip-ray doctor s3://bucket/xrays s3://bucket/labels --preset paper-2d
    """
    settings = make_config(
        config,
        preset=preset,
        assignments=assignments,
        input_options=input_option,
        output_options=output_option,
    )
    from salip_ray.cluster.doctor import examine

    console = Console(highlight=False, soft_wrap=True)
    failed = False
    for finding in examine(settings, input=input, output=output, address=address):
        failed |= finding.verdict == "fix"
        console.print(f"[{_COLOURS[finding.verdict]}]{finding.verdict:<5}[/]", end="")
        console.print(f"{finding.check}: {finding.message}", markup=False)
    raise typer.Exit(int(failed))
