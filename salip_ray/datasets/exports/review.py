"""The review queue: the labels that most need a person, the least certain first.

    REVIEW/
      queue.csv      one line per image; fill in the column decision
      images/        NAME.png, the image
      masks/         NAME.png, the label map as a palette PNG; correct it with any paint tool
      overlays/      NAME.png, the image with outlines, to look at

A changed mask is a correction. In the column ``decision``, ``accept`` confirms a label and
``reject`` throws it away; nothing decides nothing.
:func:`~salip_ray.datasets.exports.review_import.import_review` brings the decisions back into the
output, and :class:`~salip_ray.datasets.pseudo_labels.PseudoLabels` applies them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from typing import Any

import cv2
import numpy as np

from salip_ray.datasets.exports import palette
from salip_ray.datasets.exports.cases import NO_SPLIT, case_name, describe, digest
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.exports.pixels import image_png, png
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.queue import is_decided, least_certain_first
from salip_ray.output.masks import LabelMap, encode_png
from salip_ray.schema import Image

QUEUE = "queue.csv"
COLUMNS = ("rank", "name", "decision", "confidence", "image_id", "uri", "mask_sha256")
CLASSES_COLUMN = "classes"  #: ids of the classes in the mask; older queues lack it


def export(
    labels: PseudoLabels,
    location: str,
    *,
    limit: int | None = None,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write the queue; return the number of images.

    Images whose labels a person has decided on are left out.

    Args:
        labels: what to review.
        location: an empty or new location.
        limit: the most images to write, the least certain first.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else, or a queue from before other decisions.
        InputError: no image can be read; a single one is left out and listed.
    """
    undecided = [entry for entry in labels.entries if not is_decided(entry, labels)]
    queue = sorted(undecided, key=least_certain_first)[:limit]
    about = describe(
        "review", labels, NO_SPLIT, limit=limit, queue=digest([entry.image_id for entry in queue])
    )
    with destination_of(location, about, storage_options) as destination:
        skipped = Unreadable(labels, destination)
        names = {
            entry.image_id: f"{rank:05d}-{case_name(entry)}" for rank, entry in enumerate(queue, 1)
        }
        # The slices of a volume in sequence, however they rank, so that it is unpacked once.
        for entry in sorted(queue, key=lambda entry: (entry.picture.uri, entry.picture.index or 0)):
            folders = ("images", "overlays", "masks")
            files = [f"{folder}/{names[entry.image_id]}.png" for folder in folders]
            if destination.has(*files):
                continue
            sample = skipped.sample(entry)
            if sample is None:
                continue
            image, label_map = sample["image"], sample["labels"]
            pngs = (image_png(image), png(overlay(image, label_map)), mask_png(label_map))
            for file, data in zip(files, pngs, strict=True):
                destination.write(file, data)
        written = skipped.finish(len(queue))
        if not destination.has(QUEUE):  # a person may have edited it
            readable = [entry for entry in queue if entry.image_id not in skipped.reasons]
            destination.write(QUEUE, _queue(labels, readable, names))
        destination.complete(images_written=written)
        return written


def _queue(labels: PseudoLabels, queue: list[Entry], names: dict[str, str]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, CLASSES_COLUMN))
    for rank, entry in enumerate(queue, start=1):
        label_map = labels.label_map(entry)
        classes = [i for i in np.unique(label_map).tolist() if i in labels.class_ids.values()]
        confidence = "" if math.isnan(entry.confidence) else f"{entry.confidence:.4f}"
        writer.writerow(
            (
                *(rank, names[entry.image_id], "", confidence, entry.image_id, entry.uri),
                *(mask_digest(label_map), " ".join(map(str, classes))),
            )
        )
    return text.getvalue()


def overlay(image: Image, label_map: LabelMap) -> Image:
    """Return the image with the outline of each class, RGB [H, W, 3]."""
    drawn = image.copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    colours = palette.colours()
    for class_id in np.unique(label_map[label_map > 0]).tolist():
        mask = (label_map == class_id).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        colour = colours[class_id if class_id < len(colours) else 1 + class_id % 254]
        cv2.drawContours(drawn, contours, -1, colour, width, cv2.LINE_AA)
    return drawn


def mask_png(label_map: LabelMap) -> bytes:
    """Return a label map as a palette PNG, or a 16-bit grey one past 254 classes."""
    return palette.encode(label_map) if label_map.dtype == np.uint8 else encode_png(label_map)


def mask_digest(label_map: LabelMap) -> str:
    """Hash the pixel values, so that saving a file again is not an edit."""
    values = np.ascontiguousarray(label_map, dtype=np.uint16)
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()
