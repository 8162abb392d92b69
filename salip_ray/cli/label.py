"""``salip-ray label``."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.options import (
    Candidates,
    Exclude,
    Extend,
    Include,
    InputOption,
    Limit,
    Mode,
    NewManifest,
    OutputOption,
    Preset,
    Prompts,
    Quiet,
    Reference,
    Set,
    Task,
    make_config,
    require_mode_for_reference,
)


def label(
    input: Annotated[  # noqa: A002  (the word a person would use)
        str, typer.Argument(help="Folder, prefix, glob, image or manifest; local, s3://, gs://...")
    ],
    output: Annotated[str, typer.Argument(help="New or empty location, or a job to resume.")],
    config: Task,
    preset: Preset = None,
    assignments: Set = None,
    mode: Mode = None,
    reference: Reference = None,
    prompts: Prompts = None,
    candidates: Candidates = None,
    extend: Extend = False,
    include: Include = None,
    exclude: Exclude = None,
    limit: Limit = None,
    manifest: NewManifest = None,
    quiet: Quiet = False,
    input_option: InputOption = None,
    output_option: OutputOption = None,
) -> None:
    """Label every image of INPUT and write the labels to OUTPUT.

    If the job is stopped or killed, run the same command again to resume.

    Example: salip-ray label s3://bucket/xrays s3://bucket/labels --config lungs
    """
    settings = make_config(
        config,
        preset=preset,
        assignments=assignments,
        modes=mode,
        input_options=input_option,
        output_options=output_option,
    )
    require_mode_for_reference(settings, reference)
    # Imported after the configuration is checked: Ray and torch take seconds.
    from salip_ray import pipeline

    pipeline.label(
        input,
        output,
        settings,
        references=reference,
        prompts=prompts,
        candidates=candidates,
        manifest=manifest,
        quiet=quiet,
        extend=extend,
        include=include or (),
        exclude=exclude or (),
        limit=limit,
    )
