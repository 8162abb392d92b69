"""``salip-ray evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from salip_ray.cli.options import Manifest, storage_options
from salip_ray.errors import JobError


def evaluate(
    labels: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    reference: Annotated[
        str, typer.Argument(help="Folder of masks (same stem as the image) or index.csv.")
    ],
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all figures as JSON, and summary_nnunet.json beside it."
        ),
    ] = None,
    images: Annotated[bool, typer.Option(help="Print the figures of each image, too.")] = True,
    surfaces: Annotated[
        bool, typer.Option(help="HD95 and NSD, too: they take most of the time.")
    ] = True,
    manifest: Manifest = None,
    labels_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="fsspec storage option of LABELS."),
    ] = None,
    reference_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="The same for REFERENCE."),
    ] = None,
) -> None:
    """Score LABELS against REFERENCE masks: Dice, IoU, HD95 and NSD of each class and method.

    With one class every value above 0 of a mask is it; with several the values are class ids.
    Slices are scored against those of a NIfTI volume or TIFF of their volume's name, or a mask
    each (NAME/007.png, NAME-007.png), and each volume in 3-D, too.
    Intervals are a seeded bootstrap's over images, a volume's slices being one, at 95 %. HD95 is in
    pixels; NSD is the share of the outlines within 2 pixels of each other.
    """
    from salip_ray.evaluation.outputs import evaluate_output, write_results
    from salip_ray.output.reader import LabelOutput
    from salip_ray.report.tables import (
        image_table,
        notes,
        stage_table,
        summary_table,
        volume_table,
    )
    from salip_ray.sources.references import References

    opened = LabelOutput.open(labels, storage_options("labels", labels_option), manifest)
    references = References.open(reference, storage_options("reference", reference_option))
    found = evaluate_output(opened, references, surfaces=surfaces)
    if json is not None:
        write_results(found, json, opened, references)
    console = Console()
    if images and found.scores:
        console.print(image_table(found))
    if any(score.volume is not None for score in found.scores):
        console.print(volume_table(found))
    console.print(summary_table(found))
    if found.walks:
        console.print(stage_table(found))
    for note in notes(found):
        console.print(note, highlight=False, markup=False)
    if not found.scores:
        raise JobError(f"no image of {labels} could be scored against {reference}")
