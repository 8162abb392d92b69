"""``salip-ray consensus``."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.options import NewManifest, OutputOption, Quiet, storage_option, storage_options


def consensus(
    runs: Annotated[list[str], typer.Argument(help="Two or more finished outputs of label.")],
    output: Annotated[str, typer.Argument(help="New or empty location, or one to resume.")],
    run_manifest: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Manifest of a run started with --manifest, in their order. Can be repeated.",
        ),
    ] = None,
    manifest: NewManifest = None,
    quiet: Quiet = False,
    run_option: Annotated[list[str] | None, storage_option("RUN", "anon=true")] = None,
    output_option: OutputOption = None,
) -> None:
    """Write the masks on which runs over the same images agree, as a separate output.

    A pixel has a class if more than half of the runs say so. Pixels on which runs differ are
    ignored in training. The confidence is the mean Dice of all pairs of runs.

    If the command is stopped or killed, run it again to resume.

    Example: salip-ray consensus ./labels-lungs ./labels-lungs-boxes ./agreed
    """
    # Imported late: Ray takes seconds.
    from salip_ray.consensus.job import make_consensus

    make_consensus(
        runs,
        output,
        run_options=storage_options("run", run_option),
        output_options=storage_options("output", output_option),
        run_manifests=run_manifest or (),
        manifest=manifest,
        quiet=quiet,
    )
