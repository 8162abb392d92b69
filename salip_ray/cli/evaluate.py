"""``salip-ray evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from salip_ray.cli.options import Manifest, storage_option, storage_options
from salip_ray.errors import JobError

_WORST = 20  # images and volumes that are printed by default


def evaluate(
    labels: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    reference: Annotated[
        str,
        typer.Argument(help="Folder of masks (same stem as the image), index.csv, or COCO file."),
    ],
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all figures as JSON, and summary_nnunet.json next to it."
        ),
    ] = None,
    every_image: Annotated[
        bool, typer.Option("--all", help="Print every image and volume, not only the worst twenty.")
    ] = False,
    surfaces: Annotated[
        bool, typer.Option(help="Compute HD95 and NSD, which take most of the time.")
    ] = True,
    instance_ids: Annotated[
        bool,
        typer.Option("--instance-ids", help="Each value of a mask is an object of the one class."),
    ] = False,
    manifest: Manifest = None,
    labels_option: Annotated[list[str] | None, storage_option("LABELS")] = None,
    reference_option: Annotated[list[str] | None, storage_option("REFERENCE")] = None,
) -> None:
    """Score LABELS against REFERENCE masks: Dice, IoU, HD95 and NSD of each class and method.

    If the task has one class, every mask value above 0 belongs to it; else the values are class
    ids. Slices are scored against a NIfTI volume or TIFF with the name of their volume, or against
    one mask per slice (NAME/007.png, NAME-007.png). Each volume is also scored in 3-D.

    Intervals are 95 % bootstrap intervals over images; the slices of a volume count as one image.
    HD95 is in pixels. NSD is the share of both outlines that lie within 2 pixels of each other.
    In 3-D both are in millimetres (2 mm), if the reference is a NIfTI volume.

    Objects (two lungs) are matched above an IoU of 0.5: F1, and panoptic quality (PQ). Those of a
    mask are its components, without those below 2 % of the largest; a COCO file (.json) and
    --instance-ids tell objects apart that touch.

    Example: salip-ray evaluate ./labels ./masks --json scores/evaluation.json
    """
    from salip_ray.evaluation.coco_references import open_references
    from salip_ray.evaluation.outputs import evaluate_output, write_results
    from salip_ray.output.reader import LabelOutput
    from salip_ray.report.tables import (
        has_several_objects,
        image_table,
        instance_table,
        notes,
        stage_table,
        summary_table,
        volume_table,
    )

    opened = LabelOutput.open(labels, storage_options("labels", labels_option), manifest)
    names = [spec.label for spec in opened.classes]
    options = storage_options("reference", reference_option)
    references = open_references(reference, names, options)
    evaluation = evaluate_output(opened, references, surfaces=surfaces, instance_ids=instance_ids)
    if json is not None:
        write_results(evaluation, json, opened, references)
    console = Console()
    limit = None if every_image else _WORST
    if evaluation.scores:
        console.print(summary_table(evaluation))
        if has_several_objects(evaluation):
            console.print(instance_table(evaluation))
        if evaluation.stages:
            console.print(stage_table(evaluation))
        if any(score.volume is not None for score in evaluation.scores):
            console.print(volume_table(evaluation, limit))
        console.print(image_table(evaluation, limit))
    for note in notes(evaluation):
        console.print(note, highlight=False, markup=False)
    if not evaluation.scores:
        raise JobError(
            f"no image of {labels} could be scored against {reference}: masks need the stems of "
            "their images, or an index.csv with the columns image and mask"
        )
