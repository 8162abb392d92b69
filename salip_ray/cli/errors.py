"""``salip-ray errors``: the images without a label because of an error, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salip_ray.cli.files import writing
from salip_ray.cli.options import Manifest, OutputOption, storage_options
from salip_ray.wording import counted


def errors(
    output: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write one line per image.")
    ] = None,
    manifest: Manifest = None,
    output_option: OutputOption = None,
) -> None:
    """List the reasons why images of OUTPUT have no label, the most frequent first.

    salip-ray retry labels them again.

    Example: salip-ray errors ./labels --csv errors.csv
    """
    from salip_ray.output.reader import LabelOutput
    from salip_ray.report.errors import group_errors, read_errors, write_csv

    opened = LabelOutput.open(output, storage_options("output", output_option), manifest)
    if csv is not None:
        with writing(f"--csv {csv}"):
            csv.parent.mkdir(parents=True, exist_ok=True)
            with csv.open("w", newline="", encoding="utf-8") as file:
                count = write_csv(read_errors(opened), file)
        typer.echo(f"{counted(count, 'error row')} in {csv}")
        return
    groups = group_errors(read_errors(opened))
    total = sum(group.count for group in groups)
    if not groups:
        typer.echo("no error rows")
        return
    typer.echo(f"{counted(total, 'error row')} for {counted(len(groups), 'reason')}:")
    for group in groups:
        first = group.first
        typer.echo(f"\n{counted(group.count, 'image')}: {first.stage}: {first.type}")
        typer.echo(f"  {first.message}")
        for uri in group.uris:
            typer.echo(f"  - {uri}")
