"""``salip-ray label``."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.options import (
    InputOption,
    Mode,
    OutputOption,
    Preset,
    Quiet,
    Set,
    make_config,
)
from salip_ray.errors import ConfigError


def label(
    input: Annotated[  # noqa: A002  (the word a person would use)
        str, typer.Argument(help="Folder, prefix, glob, image or manifest; local, s3://, gs://...")
    ],
    output: Annotated[str, typer.Argument(help="New or empty location, or one to go on with.")],
    config: Annotated[
        str,
        typer.Option(
            metavar="TASK", help="What to label: lungs, brain, fetal_head, or a YAML file."
        ),
    ],
    preset: Preset = None,
    assignments: Set = None,
    mode: Mode = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="MASKS", help="Reference masks for gt_sam: a folder or index.csv."),
    ] = None,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="INPUT has grown: label what is new, into new shards."),
    ] = False,
    manifest: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Keep manifest.parquet, which has all names, here."),
    ] = None,
    quiet: Quiet = False,
    input_option: InputOption = None,
    output_option: OutputOption = None,
) -> None:
    """Label every image of INPUT and write the labels to OUTPUT.

    Stopped or killed, the same command goes on where it was. Example:

    salip-ray label s3://bucket/xrays s3://bucket/labels --config lungs
    """
    settings = make_config(
        config,
        preset=preset,
        assignments=assignments,
        modes=mode,
        input_options=input_option,
        output_options=output_option,
    )
    if reference is not None and "gt_sam" not in settings.run.modes:
        raise ConfigError("--reference is for the mode gt_sam: add it, as in --mode cascade,gt_sam")
    # Imported after the configuration is known to be right: Ray and torch take seconds.
    from salip_ray import pipeline

    pipeline.label(
        input,
        output,
        settings,
        references=reference,
        manifest=manifest,
        quiet=quiet,
        extend=extend,
    )
