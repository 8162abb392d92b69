"""``salip-ray export``: labels in the forms that trainers and labelling tools read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from salip_ray.cli.exporting import (
    Classes,
    Dest,
    DestOption,
    Export,
    ImagesOption,
    ImagesRoot,
    LabelsOption,
    Output,
    say,
    with_shared_options,
)
from salip_ray.cli.options import Manifest, storage_options

export = typer.Typer(
    no_args_is_help=True,
    help="Write labels in the forms that trainers and labelling tools read.",
)
ShardSize = Annotated[int, typer.Option(min=1, help="Images of a shard.")]
#: These forms have no pixel that is neither a class nor background.
_without_ignore = partial(with_shared_options, without=("ignore_disagreement",))


@export.command()
@_without_ignore
def coco(export: Export) -> int:
    """COCO instances: a mask of each image and class, with its confidence as score."""
    from salip_ray.datasets.exports import coco as form

    return form.export(export.labels, export.dest, **export.keywords)


@export.command()
@with_shared_options
def nnunet(
    export: Export,
    number: Annotated[int, typer.Option(min=1, max=999, help="Of the dataset.")] = 500,
    name: Annotated[str, typer.Option(help="Of the dataset; the task's by default.")] = "",
    rgb: Annotated[bool, typer.Option("--rgb", help="Three channels, not one.")] = False,
) -> int:
    """nnU-Net v2's raw dataset of PNGs, as a new folder in DEST (nnUNet_raw)."""
    from salip_ray.datasets.exports import nnunet as form

    return form.export(
        export.labels, export.dest, number=number, name=name, rgb=rgb, **export.keywords
    )


@export.command()
@with_shared_options
def webdataset(export: Export, shard_size: ShardSize = 500) -> int:
    """WebDataset tar shards: KEY.png, KEY.mask.png, KEY.json."""
    from salip_ray.datasets.exports import webdataset as form

    return form.export(export.labels, export.dest, shard_size=shard_size, **export.keywords)


@export.command()
@with_shared_options
def hf(export: Export, shard_size: ShardSize = 500) -> int:
    """A folder for Hugging Face's load_dataset: Parquet with the pictures inside."""
    from salip_ray.datasets.exports import hf as form

    return form.export(export.labels, export.dest, shard_size=shard_size, **export.keywords)


@export.command()
@_without_ignore
def yolo(export: Export) -> int:
    """YOLO segmentation: polygons and data.yaml. Holes are filled."""
    from salip_ray.datasets.exports import yolo as form

    return form.export(export.labels, export.dest, **export.keywords)


@export.command()
@with_shared_options
def decathlon(export: Export) -> int:
    """MONAI's decathlon data list: dataset.json, imagesTr, labelsTr."""
    from salip_ray.datasets.exports import decathlon as form

    return form.export(export.labels, export.dest, **export.keywords)


@export.command()
def review(
    labels: Output,
    dest: Dest,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many, the least certain.")
    ] = None,
    classes: Classes = None,
    images_root: ImagesRoot = None,
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """The labels most worth a person's time, worst first: queue.csv, pictures and masks.

    Correct the masks, write accept or reject into queue.csv, then salip-ray import-review.
    """
    from salip_ray.datasets.exports import review as form
    from salip_ray.datasets.pseudo_labels import PseudoLabels

    opened = PseudoLabels(
        labels,
        classes=classes or None,
        images_root=images_root,
        storage_options=storage_options("labels", labels_option),
        image_options=storage_options("images", images_option),
        manifest=manifest,
    )
    options = storage_options("dest", dest_option)
    say(form.export(opened, dest, limit=limit, storage_options=options), dest)


def import_review(
    review: Annotated[Path, typer.Argument(help="Folder made by salip-ray export review.")],
    labels: Output,
    labels_option: LabelsOption = None,
) -> None:
    """Bring corrected, accepted and rejected labels of REVIEW back into LABELS.

    They go to LABELS/reviews/, beside the shards, and count in training and in every export but
    nifti and dicom-seg, which write what the cascade found.
    """
    from salip_ray.datasets.exports.review import import_review as bring_back

    found = bring_back(review, labels, storage_options("labels", labels_option))
    typer.echo(
        f"{found.corrected} corrected, {found.accepted} accepted, {found.rejected} rejected, "
        f"{found.undecided} undecided"
    )
