"""``salip-ray weights``: list the official checkpoints and fetch them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from salip_ray.cli.options import WeightsOption, storage_options
from salip_ray.models.checkpoints import CHECKPOINTS

weights = typer.Typer(
    no_args_is_help=True,
    help="List and fetch official checkpoints. The bundled models need none.",
)


@weights.command(name="list")
def list_weights() -> None:
    """List addresses, sizes, SHA-256 and licences of the official files."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("name", "MB", "licence", "used as"):
        table.add_column(name, justify="right" if name == "MB" else "left")
    for name, file in CHECKPOINTS.items():
        table.add_row(name, f"{file.size / 1e6:,.0f}", file.licence, file.used_as)
    console.print(table)
    for name, file in CHECKPOINTS.items():
        # Plain lines that are not wrapped, to be copied.
        typer.echo(f"{name}\n  {file.uri}\n  sha256 {file.sha256}")


@weights.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_URI", help="A name from salip-ray weights list, or any URI."
        ),
    ],
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Expected SHA-256 of the file.")
    ] = None,
    weights_option: WeightsOption = None,
) -> None:
    """Fetch a file into the cache ($SALIP_RAY_CACHE), verify it, and print its path."""
    from salip_ray.models.weights import fetch as fetch_file

    options = storage_options("weights", weights_option)
    known = CHECKPOINTS.get(name)
    expected = sha256 or (known.sha256 if known else None)
    path = fetch_file(known.uri if known else name, sha256=expected, storage_options=options)
    typer.echo(path)
