"""``salip-ray report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salip_ray.cli.files import writing
from salip_ray.cli.options import (
    InputOption,
    Manifest,
    OutputOption,
    storage_option,
    storage_options,
)
from salip_ray.output.layout import REPORT


def report(
    output: Annotated[
        str,
        typer.Argument(help="Output of salip-ray label, or a folder of several; local or a URI."),
    ],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"File to write (default: OUTPUT/{REPORT}).")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="MASKS", help="Score against these masks: a folder or index.csv."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, max=24, help="Images per group of the gallery.")
    ] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random samples.")] = 0,
    manifest: Manifest = None,
    output_option: OutputOption = None,
    input_option: InputOption = None,
    reference_option: Annotated[list[str] | None, storage_option("MASKS")] = None,
) -> None:
    """Write a report of OUTPUT: one HTML file that opens without a network.

    Counts and distributions cover all rows. The gallery shows a sample of the images, which are
    fetched from the input.

    Example: salip-ray report s3://bucket/labels --html report.html
    """
    from salip_ray.report.build import make_report

    options = storage_options("output", output_option)
    text = make_report(
        output,
        output_options=options,
        input_options=storage_options("input", input_option),
        reference=reference,
        reference_options=storage_options("reference", reference_option),
        manifest=manifest,
        seed=seed,
        per_group=images,
    ).encode()
    typer.echo(f"report: {write_report(output, html, text, options)} ({len(text) / 1e6:.1f} MB)")


def write_report(
    output: str, html: Path | None, text: bytes, options: dict[str, object] | None = None
) -> str:
    """Write a report to ``html``, or into its output, and return its location.

    Raises:
        OutputError: the file cannot be written.
    """
    return write_html(output, html, text, REPORT, options)


def write_html(
    output: str, html: Path | None, text: bytes, name: str, options: dict[str, object] | None = None
) -> str:
    """Write a page to ``html``, or as ``name`` into its output, and return its location.

    Raises:
        OutputError: the file cannot be written.
    """
    if html is None:
        from salip_ray.output.store import Store

        store = Store(output, options)
        store.write(name, text)
        return f"{store}/{name}"
    with writing(f"--html {html}"):
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_bytes(text)
    return str(html)
