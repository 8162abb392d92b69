"""``salip-ray verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.options import Manifest, OutputOption, storage_options
from salip_ray.errors import JobError

_SHOWN = 20


def verify(
    output: Annotated[str, typer.Argument(help="What salip-ray label wrote; local, s3://, ...")],
    partial: Annotated[
        bool, typer.Option("--partial", help="The job has not ended: check what is committed.")
    ] = False,
    manifest: Manifest = None,
    output_option: OutputOption = None,
) -> None:
    """Check every promise of OUTPUT: counts, ids, checksums, masks against label maps, sizes.

    Exit status 1 where one is broken. Example:

    salip-ray verify s3://bucket/labels
    """
    options = storage_options("output", output_option)
    from salip_ray.output.verify import verify as check

    found = check(output, options, partial=partial, manifest=manifest)
    typer.echo(
        f"{found.output}: {found.images:,} images; {found.committed:,} of {found.shards:,} shards "
        f"committed; {found.rows:,} rows and {found.label_maps:,} label maps checked"
    )
    for problem in found.problems[:_SHOWN]:
        typer.echo(f"  {problem}")
    if (more := len(found.problems) - _SHOWN) > 0:
        typer.echo(f"  and {more:,} more")
    if found.problems:
        raise JobError(
            f"{len(found.problems):,} promises of {found.output} are broken; "
            f"the first: {found.problems[0]}"
        )
    typer.echo("all promises kept")
