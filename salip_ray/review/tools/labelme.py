"""LabelMe: one JSON file per image with pixel masks; open the folder in ``labelme``.

    DEST/NAME.json    shapes of the type "mask", and the flags accept and reject
    DEST/images/      the images as PNGs

After a correction LabelMe saves into the same files.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
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
from salip_ray.datasets.exports.pixels import png
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError
from salip_ray.output.layout import EXPORT
from salip_ray.output.masks import LabelMap, decode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.review.records import ImageReview
from salip_ray.review.tools.shared import Returned, ToolImages, classes_of, origin

_VERSION = "5.5.0"  # of the format; masks need 5.3
_IGNORE = "pixels to ignore"


def export(
    labels: PseudoLabels, location: str, *, storage_options: dict[str, Any] | None = None
) -> int:
    """Write the images and a JSON file for each; return the number of images.

    Files that exist are left alone: a person may have corrected them.

    Raises:
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    with destination_of(location, describe("labelme", labels, NO_SPLIT), storage_options) as to:
        skipped = Unreadable(labels, to)
        images = ToolImages(labels, to, copy=True, skipped=skipped)
        for entry in labels.entries:
            image, name = images.written(entry), f"{case_name(entry)}.json"
            if image is not None and not to.has(name):
                to.write(name, json.dumps(_document(labels, entry, image), indent=1))
        written = skipped.finish(len(labels))
        to.write(PROVENANCE, provenance(labels, NO_SPLIT, skipped.reasons))
        to.complete(**counts(labels))
    return written


def _document(labels: PseudoLabels, entry: Entry, image: str) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "flags": {"accept": False, "reject": False},
        "shapes": list(_shapes(labels, entry)),
        "imagePath": image,
        "imageData": None,
        "imageHeight": entry.height,
        "imageWidth": entry.width,
        **origin(labels, entry),
    }


def _shapes(labels: PseudoLabels, entry: Entry) -> Iterator[dict[str, Any]]:
    label_map = labels.label_map(entry)
    names = {class_id: label for label, class_id in labels.class_ids.items()}
    names[labels.ignore_index] = _IGNORE
    for class_id in np.unique(label_map[label_map > 0]).tolist():
        mask = label_map == class_id
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, bottom, left, right = (int(n) for n in (rows[0], rows[-1], columns[0], columns[-1]))
        crop = mask[top : bottom + 1, left : right + 1].astype(np.uint8) * 255
        figures = entry.figures.get(names[class_id])
        score = None if figures is None else json_figure(figures.confidence, 3)
        yield {
            "label": names[class_id],
            "points": [[left, top], [right, bottom]],
            "group_id": None,
            "description": "" if score is None else f"confidence {score}",
            "shape_type": "mask",
            "flags": {},
            "mask": base64.b64encode(png(crop)).decode("ascii"),
        }


def read(folder: Path, output: LabelOutput) -> list[ImageReview]:
    """Return the decisions in a folder that LabelMe has saved to.

    Classes whose pixels changed are corrected. The flag ``accept`` accepts the others, ``reject``
    rejects all. An image without a flag and without a change is undecided.

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


def is_labelme(folder: Path) -> bool:
    """Return True if a folder is an export for LabelMe."""
    try:
        return bool(json.loads((folder / EXPORT).read_bytes())["format"] == "labelme")
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
            raise InputError(f"{file} is not a file of LabelMe")
        yield file, document


def _review(document: Mapping[str, Any], returned: Returned) -> ImageReview:
    image_id, flags = document["salip_image_id"], document.get("flags") or {}
    if flags.get("reject"):
        return returned.rejected(image_id)
    drawn = _label_map(document, returned)
    return returned.corrected(image_id, drawn, accepted=bool(flags.get("accept")))


def _label_map(document: Mapping[str, Any], returned: Returned) -> LabelMap:
    ids = {**returned.classes, _IGNORE: returned.ignore_index}
    drawn = np.zeros_like(returned.label_map(document["salip_image_id"]))
    for shape in document["shapes"]:
        if shape["label"] not in ids:
            raise ValueError(f"the label {shape['label']!r} is unknown")
        if shape["shape_type"] != "mask":
            raise ValueError(
                f"a shape of {shape['label']} is a {shape['shape_type']}: only masks have every "
                "pixel, so draw it as a mask"
            )
        (left, top), (right, bottom) = ((round(x), round(y)) for x, y in shape["points"])
        try:
            crop = decode_png(base64.b64decode(shape["mask"], validate=True)) > 0
        except binascii.Error:
            raise ValueError(f"the mask of {shape['label']} is damaged") from None
        inside = drawn[top : bottom + 1, left : right + 1]
        if min(left, top) < 0 or inside.shape != crop.shape:
            raise ValueError(f"the mask of {shape['label']} does not fit its box or image")
        inside[crop] = ids[shape["label"]]
    return drawn
