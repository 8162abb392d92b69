"""MONAI's decathlon data list: ``dataset.json``, ``imagesTr``, ``labelsTr``, as PNGs."""

from __future__ import annotations

import json
from typing import Any

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    Split,
    cases,
    free_names,
)
from salip_ray.datasets.exports.frame import image_export
from salip_ray.datasets.exports.pixels import image_png
from salip_ray.datasets.index import json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.masks import encode_png

_SECTIONS = {"train": "training", "val": "validation"}
_RESERVED = frozenset({"background", "ignore"})


def export(
    labels: PseudoLabels,
    location: str,
    *,
    split: Split = NO_SPLIT,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write images, label maps and the data list; return the number of images.

    ``monai.data.load_decathlon_datalist(..., is_segmentation=True)`` reads the sections
    ``training`` and, with a split, ``validation``. An item also has its ``confidence``, which is
    null if it is unknown. A class with a reserved name is called ``NAME_class``.

    Raises:
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    with image_export("decathlon", labels, location, split, storage_options) as (
        destination,
        reader,
    ):
        sections: dict[str, list[dict[str, Any]]] = {
            _SECTIONS[part]: [] for part in split.parts(labels)
        }
        for part, case, entry in cases(labels, split):
            image_file, label_file = f"imagesTr/{case}.png", f"labelsTr/{case}.png"
            if not destination.has(image_file, label_file):
                sample = reader.sample(entry)
                if sample is None:
                    continue
                destination.write(image_file, image_png(sample["image"]))
                destination.write(label_file, encode_png(sample["labels"]))
            sections[_SECTIONS[part]].append(
                {
                    "image": f"./{image_file}",
                    "label": f"./{label_file}",
                    "confidence": json_figure(entry.confidence),
                }
            )
        written = reader.finish(len(labels))
        names = free_names(labels.class_ids, _RESERVED)
        description = {
            "name": labels.output.run["fingerprint"]["recipe"]["task"]["name"],
            "description": "Pseudo-labels by salip_ray; not checked by a person",
            "tensorImageSize": "2D",
            "labels": {
                "0": "background",
                **{str(class_id): names[label] for label, class_id in labels.class_ids.items()},
                **({str(labels.ignore_index): "ignore"} if labels.may_ignore else {}),
            },
            "numTraining": len(sections["training"]),
            **sections,
            "test": [],
        }
        destination.write("dataset.json", json.dumps(description, indent=1) + "\n")
        return written
