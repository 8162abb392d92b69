"""nnU-Net v2's raw dataset: ``DatasetNNN_Name/{imagesTr,labelsTr,dataset.json}``, PNGs.

Classes are renumbered 1, 2, ... as nnU-Net wants them; pixels to ignore get its ignore label, the
number after the last class. A split becomes ``splits_final.json``, to be copied beside the
preprocessed dataset.
"""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np

from salip_ray.datasets.exports.cases import (
    PROVENANCE,
    Parts,
    about,
    cases,
    consecutive,
    png,
    provenance,
)
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError
from salip_ray.output.masks import LabelMap, encode_png
from salip_ray.sources.locations import join

_FILE_ENDING = ".png"


def export(
    labels: PseudoLabels,
    location: str,
    *,
    number: int = 500,
    name: str = "",
    rgb: bool = False,
    parts: Parts = Parts(),  # noqa: B008  (frozen)
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write a raw dataset below ``location`` (``nnUNet_raw``); returns the number of images.

    Args:
        labels: what to export.
        location: the folder that holds raw datasets.
        number: of the dataset, 1 to 999.
        name: of the dataset; the task's by default.
        rgb: three channels a picture instead of one of its brightness.
        parts: a split to write down.
        storage_options: fsspec options of ``location``.

    Raises:
        ConfigError: the number is out of range.
        OutputError: the dataset's folder holds something else.
        InputError: an image cannot be read.
    """
    if not 1 <= number <= 999:
        raise ConfigError(f"--number must be within 1 and 999, found {number}")
    task = labels.labels.run["fingerprint"]["recipe"]["task"]["name"]
    folder = f"Dataset{number:03d}_{name or task}"
    destination = Destination(
        join(location, folder), about("nnunet", labels, parts, rgb=rgb), storage_options
    )
    ids = consecutive(labels.class_ids)
    for _, case, entry in cases(labels, parts):
        image_file, label_file = f"imagesTr/{case}_0000.png", f"labelsTr/{case}.png"
        if destination.has(image_file, label_file):
            continue
        sample = labels.sample(entry)
        pixels = sample["image"] if rgb else cv2.cvtColor(sample["image"], cv2.COLOR_RGB2GRAY)
        destination.write(image_file, png(pixels))
        destination.write(label_file, encode_png(_renumbered(sample["labels"], ids, labels)))
    named = {label: ids[class_id] for label, class_id in labels.class_ids.items()}
    if labels.may_ignore:
        named["ignore"] = len(ids) + 1
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"} if rgb else {"0": "brightness"},
        "labels": {"background": 0, **named},
        "numTraining": len(labels),
        "file_ending": _FILE_ENDING,
        "overwrite_image_reader_writer": "NaturalImage2DIO",
        "description": "Pseudo-labels by salip_ray; not checked by a person",
    }
    if parts.val:
        split: dict[str, list[str]] = {"train": [], "val": []}
        for part, case, _ in cases(labels, parts):
            split[part].append(case)
        destination.write("splits_final.json", json.dumps([split], indent=1) + "\n")
    destination.write(PROVENANCE, provenance(labels, parts))
    destination.write("dataset.json", json.dumps(description, indent=1) + "\n")
    destination.complete(images_written=len(labels))
    return len(labels)


def _renumbered(label_map: LabelMap, ids: dict[int, int], labels: PseudoLabels) -> LabelMap:
    numbers = np.zeros(max([*ids, labels.ignore_index]) + 1, label_map.dtype)
    for old, new in ids.items():
        numbers[old] = new
    numbers[labels.ignore_index] = len(ids) + 1
    return numbers[label_map]
