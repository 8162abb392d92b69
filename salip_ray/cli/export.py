"""``salip-ray export``: labels in the forms that trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salip_ray.cli.options import storage_options

if TYPE_CHECKING:
    from salip_ray.labels.dataset import PseudoLabels
    from salip_ray.labels.exports.cases import Parts

Output = Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")]
Dest = Annotated[str, typer.Argument(help="New or empty place, or one to go on with.")]
MinConfidence = Annotated[
    float,
    typer.Option(min=0, max=1, help="Leave out images with a label less certain than this."),
]
Classes = Annotated[
    list[str] | None, typer.Option("--class", metavar="LABEL", help="Only this class; repeat it.")
]
IgnoreDisagreement = Annotated[
    bool,
    typer.Option(
        "--ignore-disagreement",
        help="Mark pixels where proposal and refined mask differ as ignore (255).",
    ),
]
ImagesRoot = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Where the images' common folder has moved to."),
]
Val = Annotated[float, typer.Option(min=0, max=0.9, help="Share of images set aside as val.")]
Seed = Annotated[int, typer.Option(help="Of the split.")]
GroupBy = Annotated[
    str,
    typer.Option(
        help="What a split keeps together: image, folder, or a regular expression on the URI "
        "such as 'patient\\d+'."
    ),
]
LabelsOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="fsspec storage option of LABELS.")
]
ImagesOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="The same for the images.")
]
DestOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="The same for DEST.")
]

export = typer.Typer(
    no_args_is_help=True,
    help="Write labels in the forms that trainers and labelling tools read.",
)


def _open(
    output: str,
    min_confidence: float,
    classes: list[str] | None,
    ignore_disagreement: bool,
    images_root: str | None,
    labels_option: list[str] | None,
    images_option: list[str] | None,
) -> PseudoLabels:
    from salip_ray.labels.dataset import PseudoLabels

    return PseudoLabels(
        output,
        min_confidence=min_confidence,
        classes=classes or None,
        ignore_disagreement=ignore_disagreement,
        images_root=images_root,
        storage_options=storage_options("labels", labels_option),
        image_options=storage_options("images", images_option),
    )


def _parts(val: float, seed: int, group_by: str) -> Parts:
    from salip_ray.labels.exports.cases import Parts

    return Parts(val=val, seed=seed, group_by=group_by)


def _say(count: int, dest: str) -> None:
    typer.echo(f"{count:,} images in {dest}")


@export.command()
def coco(
    labels: Output,
    dest: Dest,
    min_confidence: MinConfidence = 0.0,
    classes: Classes = None,
    images_root: ImagesRoot = None,
    val: Val = 0.0,
    seed: Seed = 0,
    group_by: GroupBy = "image",
    labels_option: LabelsOption = None,
    dest_option: DestOption = None,
) -> None:
    """COCO instances: a mask of each image and class, with its confidence as score."""
    from salip_ray.labels.exports import coco as form

    opened = _open(labels, min_confidence, classes, False, images_root, labels_option, None)
    options = storage_options("dest", dest_option)
    parts = _parts(val, seed, group_by)
    _say(form.export(opened, dest, parts=parts, storage_options=options), dest)


@export.command()
def nnunet(
    labels: Output,
    dest: Annotated[str, typer.Argument(help="The folder of raw datasets, nnUNet_raw.")],
    number: Annotated[int, typer.Option(min=1, max=999, help="Of the dataset.")] = 500,
    name: Annotated[str, typer.Option(help="Of the dataset; the task's by default.")] = "",
    rgb: Annotated[bool, typer.Option("--rgb", help="Three channels, not one.")] = False,
    min_confidence: MinConfidence = 0.0,
    classes: Classes = None,
    ignore_disagreement: IgnoreDisagreement = False,
    images_root: ImagesRoot = None,
    val: Val = 0.0,
    seed: Seed = 0,
    group_by: GroupBy = "image",
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """nnU-Net v2's raw dataset of PNGs."""
    from salip_ray.labels.exports import nnunet as form

    opened = _open(
        labels,
        min_confidence,
        classes,
        ignore_disagreement,
        images_root,
        labels_option,
        images_option,
    )
    count = form.export(
        opened,
        dest,
        number=number,
        name=name,
        rgb=rgb,
        parts=_parts(val, seed, group_by),
        storage_options=storage_options("dest", dest_option),
    )
    _say(count, dest)


@export.command()
def webdataset(
    labels: Output,
    dest: Dest,
    shard_size: Annotated[int, typer.Option(min=1, help="Images of a shard.")] = 500,
    min_confidence: MinConfidence = 0.0,
    classes: Classes = None,
    ignore_disagreement: IgnoreDisagreement = False,
    images_root: ImagesRoot = None,
    val: Val = 0.0,
    seed: Seed = 0,
    group_by: GroupBy = "image",
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """WebDataset tar shards: KEY.png, KEY.mask.png, KEY.json."""
    from salip_ray.labels.exports import webdataset as form

    opened = _open(
        labels,
        min_confidence,
        classes,
        ignore_disagreement,
        images_root,
        labels_option,
        images_option,
    )
    count = form.export(
        opened,
        dest,
        shard_size=shard_size,
        parts=_parts(val, seed, group_by),
        storage_options=storage_options("dest", dest_option),
    )
    _say(count, dest)


@export.command()
def hf(
    labels: Output,
    dest: Dest,
    shard_size: Annotated[int, typer.Option(min=1, help="Images of a shard.")] = 500,
    min_confidence: MinConfidence = 0.0,
    classes: Classes = None,
    ignore_disagreement: IgnoreDisagreement = False,
    images_root: ImagesRoot = None,
    val: Val = 0.0,
    seed: Seed = 0,
    group_by: GroupBy = "image",
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """A folder for Hugging Face's load_dataset: Parquet with the pictures inside."""
    from salip_ray.labels.exports import hf as form

    opened = _open(
        labels,
        min_confidence,
        classes,
        ignore_disagreement,
        images_root,
        labels_option,
        images_option,
    )
    count = form.export(
        opened,
        dest,
        shard_size=shard_size,
        parts=_parts(val, seed, group_by),
        storage_options=storage_options("dest", dest_option),
    )
    _say(count, dest)


@export.command()
def yolo(
    labels: Output,
    dest: Dest,
    min_confidence: MinConfidence = 0.0,
    classes: Classes = None,
    images_root: ImagesRoot = None,
    val: Val = 0.0,
    seed: Seed = 0,
    group_by: GroupBy = "image",
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """YOLO segmentation: polygons and data.yaml. Holes are filled."""
    from salip_ray.labels.exports import yolo as form

    opened = _open(
        labels, min_confidence, classes, False, images_root, labels_option, images_option
    )
    options = storage_options("dest", dest_option)
    parts = _parts(val, seed, group_by)
    _say(form.export(opened, dest, parts=parts, storage_options=options), dest)


@export.command()
def decathlon(
    labels: Output,
    dest: Dest,
    min_confidence: MinConfidence = 0.0,
    classes: Classes = None,
    ignore_disagreement: IgnoreDisagreement = False,
    images_root: ImagesRoot = None,
    val: Val = 0.0,
    seed: Seed = 0,
    group_by: GroupBy = "image",
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """MONAI's decathlon data list: dataset.json, imagesTr, labelsTr."""
    from salip_ray.labels.exports import decathlon as form

    opened = _open(
        labels,
        min_confidence,
        classes,
        ignore_disagreement,
        images_root,
        labels_option,
        images_option,
    )
    options = storage_options("dest", dest_option)
    parts = _parts(val, seed, group_by)
    _say(form.export(opened, dest, parts=parts, storage_options=options), dest)


@export.command()
def review(
    labels: Output,
    dest: Dest,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many, the least certain.")
    ] = None,
    classes: Classes = None,
    images_root: ImagesRoot = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """The labels most worth a person's time, worst first: queue.csv, pictures and masks.

    Correct the masks, write accept or reject into queue.csv, then salip-ray import-review.
    """
    from salip_ray.labels.exports import review as form

    opened = _open(labels, 0.0, classes, False, images_root, labels_option, images_option)
    options = storage_options("dest", dest_option)
    _say(form.export(opened, dest, limit=limit, storage_options=options), dest)


def import_review(
    review: Annotated[Path, typer.Argument(help="Folder made by salip-ray export review.")],
    labels: Output,
    labels_option: LabelsOption = None,
) -> None:
    """Bring corrected, accepted and rejected labels of REVIEW back into LABELS.

    They go to LABELS/reviews/, beside the shards, and count in every export and in training.
    """
    from salip_ray.labels.exports.review import import_review as bring_back

    found = bring_back(review, labels, storage_options("labels", labels_option))
    typer.echo(
        f"{found.corrected} corrected, {found.accepted} accepted, {found.rejected} rejected, "
        f"{found.undecided} undecided"
    )
