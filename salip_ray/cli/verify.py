"""``salip-ray verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from salip_ray.cli.options import Manifest, OutputOption, storage_options
from salip_ray.errors import JobError
from salip_ray.wording import counted

_SHOWN = 20


def verify(
    output: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    partial: Annotated[
        bool,
        typer.Option("--partial", help="The job has not finished: check the committed shards."),
    ] = False,
    digest: Annotated[
        bool,
        typer.Option("--digest", help="Print the root digest, which covers every byte."),
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Root digest that OUTPUT must have."),
    ] = None,
    manifest: Manifest = None,
    output_option: OutputOption = None,
) -> None:
    """Check every file of OUTPUT: counts, ids, checksums, and masks against label maps.

    The exit status is 1 if a problem is found.

    Example: salip-ray verify s3://bucket/labels
    """
    from salip_ray.output.verify import verify as check

    checked = check(
        output,
        storage_options("output", output_option),
        partial=partial,
        manifest=manifest,
        expect=expect,
    )
    typer.echo(
        f"{checked.output}: {counted(checked.images, 'image')}; {checked.committed:,} of "
        f"{counted(checked.shards, 'shard')} committed; {counted(checked.rows, 'row')} and "
        f"{counted(checked.label_maps, 'label map')} checked"
    )
    for problem in checked.problems[:_SHOWN]:
        typer.echo(f"  {problem}")
    if (more := len(checked.problems) - _SHOWN) > 0:
        typer.echo(f"  and {more:,} more")
    if checked.problems:
        raise JobError(
            f"{checked.output} has {counted(len(checked.problems), 'problem')}; "
            f"the first: {checked.problems[0]}"
        )
    typer.echo("no problems found")
    if digest:
        typer.echo(f"root digest: {checked.digest or 'none, the output is not sealed'}")
