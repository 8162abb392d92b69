"""COCO: ``annotations/instances_PART.json`` with one RLE mask per object.

Images are named by their path below their common folder, which trainers join to the folder of the
images; no pixel is read. If any image is a DICOM file, a slice, a member of an archive, stored
turned, or has a hidden name, all images are written as PNGs into ``images/`` and named by their
path below DEST. Each annotation has its confidence as ``score``, so the same list is a COCO result.
An output of schema 2 stores no objects: there a mask of a class is one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    Split,
    case_name,
    is_plain_file,
)
from salip_ray.datasets.exports.frame import image_export
from salip_ray.datasets.exports.orientation import any_turned
from salip_ray.datasets.exports.pixels import image_png
from salip_ray.datasets.index import Entry, json_figure, known
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.cells import instance_cells
from salip_ray.output.masks import Rle, area, bbox_xywh, component_rles, decode_rle

_MOST_OBJECTS = 1_000_000  # of an image; ids of annotations are unique among all parts


def export(
    labels: PseudoLabels,
    location: str,
    *,
    split: Split = NO_SPLIT,
    components: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write COCO instance files; return the number of images.

    Image ids count from 1 in the order of the labels, in whichever part an image is. An image
    without a label has no annotation, which COCO reads as a negative.

    Args:
        labels: what to export.
        location: an empty or new location, or that of the same export, to resume it.
        split: which images go to which part.
        components: take each component of a mask for an object, whatever the output stores.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    # None, so that earlier exports can be resumed.
    with image_export(
        "coco", labels, location, split, storage_options, components=components or None
    ) as (destination, reader):
        images_stay = _can_stay(labels)
        for part, indices in split.parts(labels).items():
            name = f"annotations/instances_{part}.json"
            if destination.has(name):
                reader.carry_over(labels.entries[index] for index in indices)
                continue
            # Lines of text take a tenth of the memory of nested dicts.
            images: list[str] = []
            annotations: list[str] = []
            for index in indices:
                entry = labels.entries[index]
                if images_stay:
                    file = entry.uri[len(labels.reader.images.base) :].lstrip("/")
                else:
                    file = f"images/{case_name(entry)}.png"
                    if not destination.has(file):
                        pixels = reader.image(entry)
                        if pixels is None:
                            continue
                        destination.write(file, image_png(pixels))
                images.append(json.dumps(_image(index, entry, file)))
                annotations += [
                    json.dumps(item) for item in _annotations(labels, index, entry, components)
                ]
            reader.save()
            destination.write(name, _document(labels, images, annotations))
        return reader.finish(len(labels))


def _can_stay(labels: PseudoLabels) -> bool:
    """Return True if trainers can open every image in place and see what was labelled."""
    images = labels.reader.images
    return all(is_plain_file(entry) for entry in labels.entries) and not any_turned(
        [images.location(entry.picture.uri) for entry in labels.entries], images.storage_options
    )


def _image(index: int, entry: Entry, file: str) -> dict[str, Any]:
    return {
        "id": index + 1,
        "file_name": file,
        "height": entry.height,
        "width": entry.width,
        "salip_image_id": entry.image_id,
        "uri": entry.uri,
    }


def _annotations(
    labels: PseudoLabels, index: int, entry: Entry, components: bool
) -> list[dict[str, Any]]:
    first = (index + 1) * _MOST_OBJECTS
    return [
        {
            "id": first + number,
            "image_id": index + 1,
            "category_id": cell["class_id"],
            "segmentation": rle,
            "bbox": bbox_xywh(rle),
            "area": area(rle),
            "iscrowd": 0,
            "score": json_figure(score),
        }
        for number, (cell, rle, score) in enumerate(_objects(labels, entry, components))
    ]


def _objects(
    labels: PseudoLabels, entry: Entry, components: bool
) -> Iterator[tuple[Mapping[str, Any], Rle, float]]:
    """Yield the cell, the RLE and the confidence of each object.

    That of its class counts if a person decided on it, or if it was calibrated.
    """
    calibrations = labels.output.calibrations
    calibrated = {} if calibrations is None else calibrations.classes
    for cell in labels.masks(entry):
        figures = entry.figures[cell["label"]]
        if components:
            parts = component_rles(decode_rle(cell["rle"]))
            yield from ((cell, part, figures.confidence) for part in parts)
            continue
        for item in instance_cells(cell):
            own = known(item.get("confidence"))
            whole = figures.reviewed or math.isnan(own) or cell["label"] in calibrated
            yield cell, item["rle"], figures.confidence if whole else own


def _document(labels: PseudoLabels, images: list[str], annotations: list[str]) -> str:
    info = {"description": "Pseudo-labels by salip_ray; not checked by a person"}
    categories = [
        {"id": class_id, "name": label, "supercategory": "anatomy"}
        for label, class_id in labels.class_ids.items()
    ]
    head = f'"info": {json.dumps(info)}, "licenses": [], "categories": {json.dumps(categories)}'
    lists = [
        f'"{key}": [\n' + ",\n".join(lines) + "\n]"
        for key, lines in (("images", images), ("annotations", annotations))
    ]
    return "{" + ",\n".join([head, *lists]) + "}\n"
