"""COCO: ``annotations/instances_PART.json``, a mask of each image and class as an RLE.

Images are named by their path below their common folder, which is what trainers join to the folder
of the images; no pixel is read. Where any of them is a DICOM file, a slice, in an archive, stored
turned or has a hidden name, all are written as PNGs into ``images/``, and named by their path below
DEST. Each annotation carries its confidence as ``score``, so the same list is a COCO result, too.
"""

from __future__ import annotations

import json
from typing import Any

from salip_ray.datasets.exports.cases import (
    PROVENANCE,
    Parts,
    about,
    case_name,
    is_plain_file,
    provenance,
    rgb_png,
)
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.exports.turned import any_turned
from salip_ray.datasets.pseudo_labels import PseudoLabels


def export(
    labels: PseudoLabels,
    location: str,
    *,
    parts: Parts = Parts(),  # noqa: B008  (frozen)
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write COCO instance files; returns the number of images.

    Image ids count from 1 in the order of the labels, whatever part an image is in.

    Raises:
        OutputError: the location holds something else.
        InputError: an image cannot be read.
    """
    destination = Destination(location, about("coco", labels, parts), storage_options)
    categories = [
        {"id": class_id, "name": label, "supercategory": "anatomy"}
        for label, class_id in labels.class_ids.items()
    ]
    plain = _can_stay(labels)
    written = 0
    for part, indices in parts.of(labels).items():
        name = f"annotations/instances_{part}.json"
        written += len(indices)
        if destination.has(name):
            continue
        images: list[str] = []
        annotations: list[str] = []
        # As text at once: a tenth of the memory of nested dicts.
        for index in indices:
            entry = labels.entries[index]
            if plain:
                file = entry.uri[len(labels.images.base) :].lstrip("/")
            else:
                file = f"images/{case_name(entry)}.png"
                if not destination.has(file):
                    destination.write(file, rgb_png(labels.images.load(entry.picture)))
            images.append(
                json.dumps(
                    {
                        "id": index + 1,
                        "file_name": file,
                        "height": entry.height,
                        "width": entry.width,
                        "salip_image_id": entry.image_id,
                        "uri": entry.uri,
                    }
                )
            )
            for number, cell in enumerate(labels.masks(entry)):
                annotations.append(
                    json.dumps(
                        {
                            "id": (index + 1) * len(labels.labels.classes) + number,
                            "image_id": index + 1,
                            "category_id": cell["class_id"],
                            "segmentation": cell["rle"],
                            "bbox": cell["bbox"],
                            "area": cell["area"],
                            "iscrowd": 0,
                            "score": round(entry.confidences[cell["label"]], 6),
                        }
                    )
                )
        info = {"description": "Pseudo-labels by salip_ray; not checked by a person"}
        head = f'"info": {json.dumps(info)}, "licenses": [], "categories": {json.dumps(categories)}'
        lists = [
            f'"{key}": [\n' + ",\n".join(lines) + "\n]"
            for key, lines in (("images", images), ("annotations", annotations))
        ]
        destination.write(name, "{" + ",\n".join([head, *lists]) + "}\n")
    destination.write(PROVENANCE, provenance(labels, parts))
    destination.complete(images_written=written)
    return written


def _can_stay(labels: PseudoLabels) -> bool:
    """Whether trainers can open every image where it is, and see what was labelled."""
    images = labels.images
    return all(is_plain_file(entry) for entry in labels.entries) and not any_turned(
        [images.place(entry.picture.uri) for entry in labels.entries], images.storage_options
    )
