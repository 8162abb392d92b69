"""``salip-ray review``: write a page on which people decide on labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salip_ray.cli.exporting import (
    Classes,
    ImagesOption,
    ImagesRoot,
    LabelsOption,
    Output,
    report_notes,
)
from salip_ray.cli.options import Manifest, storage_options
from salip_ray.cli.report import write_html
from salip_ray.output.layout import REVIEW_PAGE
from salip_ray.wording import counted


def review(
    labels: Output,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"File to write (default: LABELS/{REVIEW_PAGE})."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most images; a volume is shown completely.", metavar="N")
    ] = 200,
    sample: Annotated[
        bool, typer.Option("--sample", help="Show a random sample, not the least certain.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --sample.")] = 0,
    classes: Classes = None,
    images_root: ImagesRoot = None,
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
) -> None:
    """Write a page to review LABELS: one HTML file that opens without a network.

    Accept, reject or correct labels in a browser, the least certain first. Save the decisions
    there, then run salip-ray import-review FILE LABELS.
    """
    from salip_ray.datasets.pseudo_labels import PseudoLabels
    from salip_ray.review.page import make_page
    from salip_ray.review.selection import choose

    options = storage_options("labels", labels_option)
    opened = PseudoLabels(
        labels,
        classes=classes or None,
        negatives=True,
        images_root=images_root,
        storage_options=options,
        image_options=storage_options("images", images_option),
        manifest=manifest,
    )
    entries = choose(opened, limit, sample=sample, seed=seed)
    if not entries:
        typer.echo("nothing to review: every label has a decision")
        return
    page = make_page(opened, entries, opened.output.recipe["task"]["name"])
    report_notes(page.left_out)
    file = write_html(labels, html, page.data, REVIEW_PAGE, options)
    typer.echo(f"{counted(page.shown, 'image')} in {file} ({len(page.data) / 1e6:.1f} MB)")
