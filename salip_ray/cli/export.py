"""``salip-ray export``: write labels in the formats of trainers and labelling tools."""

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
    report_notes,
    report_written,
    with_shared_options,
)
from salip_ray.cli.options import Manifest, storage_options

export = typer.Typer(
    no_args_is_help=True,
    help="Write labels in the formats of trainers and labelling tools.",
)
Copy = Annotated[
    bool,
    typer.Option("--copy", help="Write all images as PNGs, instead of using them where they are."),
]
ShardSize = Annotated[int, typer.Option(min=1, help="Images per shard.")]
#: These formats have no value for pixels to ignore.
_without_ignore = partial(with_shared_options, without=("ignore_disagreement",))
#: Corrections come back, so nothing is changed on the way out, and nothing is split.
_for_people = partial(
    with_shared_options, without=("ignore_disagreement", "val", "seed", "group_by")
)


@export.command()
@_without_ignore
def coco(
    export: Export,
    components: Annotated[
        bool,
        typer.Option(
            "--components",
            help="Take each component of a mask for an object, as for an output of schema 2.",
        ),
    ] = False,
) -> int:
    """Write COCO instances: a mask of each object (two lungs are two), its confidence as score."""
    from salip_ray.datasets.exports import coco as writer

    return writer.export(export.labels, export.dest, components=components, **export.keywords)


@export.command()
@with_shared_options
def png(
    export: Export,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Write 16-bit maps of objects instead: 1, 2, ... in each image."
        ),
    ] = False,
) -> int:
    """Write one palette PNG of class ids per image, with the name of the image."""
    from salip_ray.datasets.exports import png as writer

    return writer.export(export.labels, export.dest, instances=instances, **export.keywords)


@export.command()
@with_shared_options
def nnunet(
    export: Export,
    number: Annotated[int, typer.Option(min=1, max=999, help="Number of the dataset.")] = 500,
    name: Annotated[str, typer.Option(help="Name of the dataset (default: of the task).")] = "",
    rgb: Annotated[
        bool, typer.Option("--rgb", help="Write three channels instead of one.")
    ] = False,
) -> int:
    """Write a raw nnU-Net v2 dataset of PNGs as a new folder in DEST (nnUNet_raw)."""
    from salip_ray.datasets.exports import nnunet as writer

    return writer.export(
        export.labels, export.dest, number=number, name=name, rgb=rgb, **export.keywords
    )


@export.command()
@with_shared_options
def webdataset(export: Export, shard_size: ShardSize = 500) -> int:
    """Write WebDataset tar shards: KEY.png, KEY.mask.png, KEY.json."""
    from salip_ray.datasets.exports import webdataset as writer

    return writer.export(export.labels, export.dest, shard_size=shard_size, **export.keywords)


@export.command()
@with_shared_options
def hf(export: Export, shard_size: ShardSize = 500) -> int:
    """Write a folder for Hugging Face's load_dataset: Parquet files that hold the images."""
    from salip_ray.datasets.exports import hf as writer

    return writer.export(export.labels, export.dest, shard_size=shard_size, **export.keywords)


@export.command()
@_without_ignore
def yolo(
    export: Export,
    val_on_train: Annotated[
        bool,
        typer.Option("--val-on-train", help="Without --val: validate on the training images."),
    ] = False,
) -> int:
    """Write a YOLO segmentation dataset: polygons of each object, and data.yaml. Holes are filled.

    It needs images to validate on: give --val.
    """
    from salip_ray.datasets.exports import yolo as writer

    return writer.export(export.labels, export.dest, val_on_train=val_on_train, **export.keywords)


@export.command()
@with_shared_options
def decathlon(export: Export) -> int:
    """Write a decathlon data list for MONAI: dataset.json, imagesTr, labelsTr."""
    from salip_ray.datasets.exports import decathlon as writer

    return writer.export(export.labels, export.dest, **export.keywords)


@export.command()
def review(
    labels: Output,
    dest: Dest,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Write only the N least certain labels.", metavar="N")
    ] = None,
    classes: Classes = None,
    images_root: ImagesRoot = None,
    manifest: Manifest = None,
    labels_option: LabelsOption = None,
    images_option: ImagesOption = None,
    dest_option: DestOption = None,
) -> None:
    """Write the least certain labels for review, worst first: queue.csv, images and masks.

    Correct the masks, write accept or reject into queue.csv, then run salip-ray import-review.
    """
    from salip_ray.datasets.exports import review as writer
    from salip_ray.datasets.pseudo_labels import PseudoLabels
    from salip_ray.datasets.selection import describe_left_out

    opened = PseudoLabels(
        labels,
        classes=classes or None,
        images_root=images_root,
        storage_options=storage_options("labels", labels_option),
        image_options=storage_options("images", images_option),
        manifest=manifest,
    )
    options = storage_options("dest", dest_option)
    written = writer.export(opened, dest, limit=limit, storage_options=options)
    unreadable = opened.left_out.get("unreadable", 0)
    report_notes(describe_left_out({"unreadable": unreadable} if unreadable else {}))
    report_written(written, dest)


@export.command(name="label-studio")
@_for_people
def label_studio(
    export: Export,
    copy: Copy = False,
    sign_hours: Annotated[
        float,
        typer.Option(min=0, help="Sign the URLs of remote images for so long.", metavar="HOURS"),
    ] = 0.0,
) -> int:
    """Write tasks for Label Studio, with the labels as predictions: brush masks with scores.

    Export the annotations there as JSON, then run salip-ray import-review FILE LABELS.
    """
    from salip_ray.review.tools import label_studio as writer

    return writer.export(
        export.labels,
        export.dest,
        copy=copy,
        sign_hours=sign_hours,
        storage_options=export.storage_options,
    )


@export.command()
@_for_people
def fiftyone(export: Export, copy: Copy = False) -> int:
    """Write a dataset for FiftyOne, with a mask, a confidence and tags for each label.

    Export it there as FiftyOneDataset, then run salip-ray import-review FOLDER LABELS.
    """
    from salip_ray.review.tools import fiftyone as writer

    options = export.storage_options
    return writer.export(export.labels, export.dest, copy=copy, storage_options=options)


@export.command()
@_for_people
def labelme(export: Export, copy: Copy = False) -> int:
    """Write a folder for LabelMe: images, and JSON files with pixel masks.

    Correct them there, then run salip-ray import-review DEST LABELS.
    """
    from salip_ray.review.tools import labelme as writer

    options = export.storage_options
    return writer.export(export.labels, export.dest, copy=copy, storage_options=options)


@export.command()
@_for_people
def xanylabeling(export: Export, copy: Copy = False) -> int:
    """Write a folder for X-AnyLabeling: images, and JSON files with polygons of every pixel.

    Correct them there, then run salip-ray import-review DEST LABELS.
    """
    from salip_ray.review.tools import xanylabeling as writer

    options = export.storage_options
    return writer.export(export.labels, export.dest, copy=copy, storage_options=options)


@export.command()
@_for_people
def cvat(export: Export, copy: Copy = False) -> int:
    """Write a task for CVAT: images, labels.json, and annotations.xml with masks.

    Export it there as CVAT for images 1.1, then run salip-ray import-review FILE LABELS.
    """
    from salip_ray.review.tools import cvat as writer

    options = export.storage_options
    return writer.export(export.labels, export.dest, copy=copy, storage_options=options)


def import_review(
    review: Annotated[
        Path,
        typer.Argument(
            help="File saved by a page of salip-ray review, Label Studio or CVAT, or folder of "
            "salip-ray export review, LabelMe, X-AnyLabeling or FiftyOne."
        ),
    ],
    labels: Output,
    labels_option: LabelsOption = None,
) -> None:
    """Import corrected, accepted and rejected labels from REVIEW into LABELS.

    Decisions are written to LABELS/reviews/, next to the shards. Training and all exports use them.
    """
    from salip_ray.review.importing import import_file, import_folder

    options = storage_options("labels", labels_option)
    read = import_file if review.is_file() else import_folder
    imported = read(review, labels, options)
    typer.echo(
        f"{imported.corrected} corrected, {imported.accepted} accepted, "
        f"{imported.rejected} rejected, {imported.undecided} undecided"
    )
