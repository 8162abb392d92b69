"""nnU-Net v2's raw dataset: ``DatasetNNN_Name/{imagesTr,labelsTr,dataset.json}``, as PNGs.

Classes are renumbered 1, 2, ... because nnU-Net allows no gaps. Pixels to ignore get its ignore
label, the number after the last class. A split becomes ``splits_final.json``, to be copied into the
preprocessed dataset.
"""

from __future__ import annotations

import json
import re
from typing import Any

import cv2
import numpy as np

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    Split,
    cases,
    consecutive,
    free_names,
)
from salip_ray.datasets.exports.frame import image_export
from salip_ray.datasets.exports.pixels import png
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError
from salip_ray.output.masks import LabelMap, encode_png
from salip_ray.sources.locations import join

_FILE_ENDING = ".png"
_RESERVED = frozenset({"background", "ignore"})
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def export(
    labels: PseudoLabels,
    location: str,
    *,
    number: int = 500,
    name: str = "",
    rgb: bool = False,
    split: Split = NO_SPLIT,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write a raw dataset below ``location`` (``nnUNet_raw``); return the number of images.

    A class called ``background`` or ``ignore``, which nnU-Net reserves, becomes ``NAME_class``.

    Args:
        labels: what to export.
        location: the folder of raw datasets.
        number: of the dataset, 1 to 999.
        name: of the dataset: letters, digits, ``_`` and ``-``. The default is the task's name,
            other characters replaced.
        rgb: write three channels per image instead of its brightness.
        split: a split to record.
        storage_options: fsspec options of ``location``.

    Raises:
        ConfigError: the number or the name is not allowed.
        OutputError: the dataset's folder holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    if not 1 <= number <= 999:
        raise ConfigError(f"--number must be within 1 and 999, found {number}")
    folder = f"Dataset{number:03d}_{_dataset_name(labels, name)}"
    with image_export(
        "nnunet", labels, join(location, folder), split, storage_options, rgb=rgb
    ) as (destination, reader):
        ids = consecutive(labels.class_ids)
        cases_of: dict[str, list[str]] = {part: [] for part in split.parts(labels)}
        for part, case, entry in cases(labels, split):
            image_file, label_file = f"imagesTr/{case}_0000.png", f"labelsTr/{case}.png"
            if destination.has(image_file, label_file):
                cases_of[part].append(case)
                continue
            sample = reader.sample(entry)
            if sample is None:
                continue
            cases_of[part].append(case)
            if rgb:  # three channels, even if the image is grey
                destination.write(image_file, png(sample["image"]))
            else:
                grey = cv2.cvtColor(sample["image"], cv2.COLOR_RGB2GRAY)
                destination.write(image_file, png(grey))
            destination.write(label_file, encode_png(_renumbered(sample["labels"], ids, labels)))
        written = reader.finish(len(labels))
        if split.val:
            destination.write("splits_final.json", json.dumps([cases_of], indent=1) + "\n")
        destination.write(
            "dataset.json", json.dumps(_description(labels, ids, rgb, written), indent=1) + "\n"
        )
        return written


def _dataset_name(labels: PseudoLabels, name: str) -> str:
    if name and not _NAME.fullmatch(name):
        raise ConfigError(f"--name may have letters, digits, _ and - only, found {name!r}")
    task = str(labels.output.run["fingerprint"]["recipe"]["task"]["name"])
    return name or re.sub(r"[^A-Za-z0-9_-]+", "-", task).strip("-") or "labels"


def _description(
    labels: PseudoLabels, ids: dict[int, int], rgb: bool, written: int
) -> dict[str, Any]:
    names = free_names(labels.class_ids, _RESERVED)
    numbers = {names[label]: ids[class_id] for label, class_id in labels.class_ids.items()}
    if labels.may_ignore:
        numbers["ignore"] = len(ids) + 1
    return {
        "channel_names": {"0": "R", "1": "G", "2": "B"} if rgb else {"0": "brightness"},
        "labels": {"background": 0, **numbers},
        "numTraining": written,
        "file_ending": _FILE_ENDING,
        "overwrite_image_reader_writer": "NaturalImage2DIO",
        "description": "Pseudo-labels by salip_ray; not checked by a person",
    }


def _renumbered(label_map: LabelMap, ids: dict[int, int], labels: PseudoLabels) -> LabelMap:
    numbers = np.zeros(max([*ids, labels.ignore_index]) + 1, label_map.dtype)
    for old, new in ids.items():
        numbers[old] = new
    numbers[labels.ignore_index] = len(ids) + 1
    return numbers[label_map]
