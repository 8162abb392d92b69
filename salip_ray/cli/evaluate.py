"""``salip-ray evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from salip_ray.cli.options import storage_options
from salip_ray.errors import JobError, OutputError


def evaluate(
    labels: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    reference: Annotated[
        str, typer.Argument(help="Folder of masks (same stem as the image) or index.csv.")
    ],
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")
    ] = None,
    images: Annotated[bool, typer.Option(help="Print the figures of each image, too.")] = True,
    labels_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="fsspec storage option of LABELS."),
    ] = None,
    reference_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="The same for REFERENCE."),
    ] = None,
) -> None:
    """Score LABELS against REFERENCE masks: Dice and IoU for each class, method and image.

    With one class every value above 0 of a mask is it; with several the values are class ids.
    """
    from salip_ray.evaluation import as_json
    from salip_ray.labels.scores import open_and_evaluate
    from salip_ray.report.tables import image_table, notes, summary_table

    found = open_and_evaluate(
        labels,
        reference,
        output_options=storage_options("labels", labels_option),
        reference_options=storage_options("reference", reference_option),
    )
    if json is not None:
        try:
            json.parent.mkdir(parents=True, exist_ok=True)
            json.write_text(as_json(found), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"--json {json} cannot be written: {error.strerror}") from None
    console = Console()
    if images and found.scores:
        console.print(image_table(found))
    console.print(summary_table(found))
    for note in notes(found):
        console.print(note, highlight=False, markup=False)
    if not found.scores:
        raise JobError(f"no image of {labels} could be scored against {reference}")
