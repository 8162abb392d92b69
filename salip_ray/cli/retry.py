"""``salip-ray retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.options import (
    InputOption,
    Manifest,
    OutputOption,
    Quiet,
    Set,
    WeightsOption,
    storage_options,
)


def retry(
    output: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    input: Annotated[  # noqa: A002  (the word a person would use)
        str | None,
        typer.Option(help="The input again, if its addresses are signed."),
    ] = None,
    assignments: Set = None,
    manifest: Manifest = None,
    quiet: Quiet = False,
    input_option: InputOption = None,
    output_option: OutputOption = None,
    weights_option: WeightsOption = None,
) -> None:
    """Label the error rows of OUTPUT again, and the slices whose labels depend on theirs.

    Example: salip-ray retry s3://bucket/labels --set pools.propose.size=1
    """
    from salip_ray import pipeline
    from salip_ray.config import StorageConfig

    storage = StorageConfig(
        input=storage_options("input", input_option),
        output=storage_options("output", output_option),
        weights=storage_options("weights", weights_option),
    )
    pipeline.retry(
        output,
        storage=storage,
        overrides=assignments or (),
        input=input,
        manifest=manifest,
        quiet=quiet,
    )
