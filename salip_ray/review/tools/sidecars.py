"""JSON files next to images, as LabelMe writes them and X-AnyLabeling after it.

    DEST/NAME.png     the image, or NAME.jpg: a link to it
    DEST/NAME.json    its shapes, and the flags accept and reject

A tool that is opened on DEST finds both, and saves corrections into the same files.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    PROVENANCE,
    case_name,
    counts,
    describe,
    provenance,
)
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import ClassFigures, Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError
from salip_ray.output.layout import EXPORT
from salip_ray.output.masks import LabelMap, decode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.review.records import ImageReview
from salip_ray.review.tools import polygons
from salip_ray.review.tools.shared import Returned, ToolImages, class_masks, classes_of, origin
from salip_ray.schema import Mask, Size

FORMATS = ("labelme", "xanylabeling")
#: From label, mask and figures of a class to the shapes of a tool.
Draw = Callable[[str, Mask, ClassFigures | None], Sequence[Mapping[str, Any]]]


def export(
    labels: PseudoLabels,
    location: str,
    *,
    format_name: str,
    fields: Mapping[str, Any],
    draw: Draw,
    copy: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write the images and a JSON file for each; return the number of images.

    Files that exist are left alone: a person may have corrected them.

    Args:
        labels: the labels.
        location: an empty or new location, or an export to resume.
        format_name: one of `FORMATS`.
        fields: what the tool has in each file next to the fields of LabelMe.
        draw: makes the shapes.
        copy: write all images as PNGs instead of linking them.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    about = describe(format_name, labels, NO_SPLIT, copy=copy)
    with destination_of(location, about, storage_options) as destination:
        skipped = Unreadable(labels, destination)
        images = ToolImages(labels, destination, copy, skipped, folder="")
        for entry in labels.entries:
            image, name = images.name(entry), f"{case_name(entry)}.json"
            if image is not None and not destination.has(name):
                document = {**fields, **_document(labels, entry, image, draw)}
                destination.write(name, json.dumps(document, indent=1))
        written = skipped.finish(len(labels))
        destination.write(PROVENANCE, provenance(labels, NO_SPLIT, skipped.reasons))
        destination.complete(**counts(labels))
    return written


def _document(labels: PseudoLabels, entry: Entry, image: str, draw: Draw) -> dict[str, Any]:
    return {
        "flags": {"accept": False, "reject": False},
        "shapes": [
            shape
            for label, mask, figures in class_masks(labels, entry)
            for shape in draw(label, mask, figures)
        ],
        "imagePath": image,
        "imageData": None,
        "imageHeight": entry.height,
        "imageWidth": entry.width,
        **origin(labels, entry),
    }


def read(folder: Path, output: LabelOutput) -> list[ImageReview]:
    """Return the decisions in a folder that a tool has saved to.

    Classes whose pixels changed are corrected. The flag ``accept`` accepts the others, ``reject``
    rejects all; X-AnyLabeling's marks "checked" and "failed" do the same. An image without a flag
    and without a change is undecided.

    Args:
        folder: on this machine.
        output: the output that was exported.

    Raises:
        InputError: a file is damaged, or of another output. The message names it.
    """
    documents = dict(_documents(folder))
    returned = Returned(output, classes_of(list(documents.values()), output, folder))
    reviews = []
    for file, document in documents.items():
        try:
            reviews.append(_review(document, returned))
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            what = f"{problem} is missing" if isinstance(problem, KeyError) else problem
            raise InputError(f"{file} cannot be imported: {what}") from None
    return reviews


def is_export(folder: Path) -> bool:
    """Return True if a folder is an export for LabelMe or X-AnyLabeling."""
    try:
        return json.loads((folder / EXPORT).read_bytes())["format"] in FORMATS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _documents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(folder.glob("*.json")):
        if file.name == EXPORT:
            continue
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{file} is not JSON: restore it, or export again") from None
        if not isinstance(document, dict):
            raise InputError(f"{file} is not a file of LabelMe or X-AnyLabeling")
        yield file, document


def _review(document: Mapping[str, Any], returned: Returned) -> ImageReview:
    image_id, flags = document["salip_image_id"], document.get("flags") or {}
    if flags.get("reject") or document.get("checked") == "failed":
        return returned.rejected(image_id)
    accepted = bool(flags.get("accept")) or document.get("checked") is True
    return returned.corrected(image_id, _label_map(document, returned), accepted=accepted)


def _label_map(document: Mapping[str, Any], returned: Returned) -> LabelMap:
    values = returned.values
    drawn = np.zeros_like(returned.label_map(document["salip_image_id"]))
    for shape in document["shapes"]:
        if shape["label"] not in values:
            raise ValueError(f"the label {shape['label']!r} is unknown")
        drawn[_mask(shape, drawn.shape)] = values[shape["label"]]
    return drawn


def _mask(shape: Mapping[str, Any], size: Size) -> Mask:
    kind, label = shape["shape_type"], shape["label"]
    if kind == "polygon":
        return polygons.filled(shape["points"], size)
    if kind != "mask":
        raise ValueError(f"a shape of {label} is a {kind}: draw it as a mask or a polygon")
    (left, top), (right, bottom) = ((round(x), round(y)) for x, y in shape["points"])
    try:
        crop = decode_png(base64.b64decode(shape["mask"], validate=True)) > 0
    except binascii.Error:
        raise ValueError(f"the mask of {label} is damaged") from None
    mask = np.zeros(size, np.bool_)
    inside = mask[top : bottom + 1, left : right + 1]
    if min(left, top) < 0 or inside.shape != crop.shape:
        raise ValueError(f"the mask of {label} does not fit its box or image")
    inside[:] = crop
    return mask
