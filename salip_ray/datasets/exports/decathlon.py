"""MONAI's decathlon data list: ``dataset.json``, ``imagesTr``, ``labelsTr``, PNGs."""

from __future__ import annotations

import json
from typing import Any

from salip_ray.datasets.exports.cases import PROVENANCE, Parts, about, cases, provenance, rgb_png
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.masks import encode_png

_SECTIONS = {"train": "training", "val": "validation"}


def export(
    labels: PseudoLabels,
    location: str,
    *,
    parts: Parts = Parts(),  # noqa: B008  (frozen)
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write images, label maps and the list; returns the number of images.

    Read by ``monai.data.load_decathlon_datalist(..., is_segmentation=True)``, with the sections
    ``training`` and, of a split, ``validation``. An item also has its ``confidence``.

    Raises:
        OutputError: the location holds something else.
        InputError: an image cannot be read.
    """
    destination = Destination(location, about("decathlon", labels, parts), storage_options)
    sections: dict[str, list[dict[str, Any]]] = {_SECTIONS[part]: [] for part in parts.of(labels)}
    for part, case, entry in cases(labels, parts):
        image_file, label_file = f"imagesTr/{case}.png", f"labelsTr/{case}.png"
        sections[_SECTIONS[part]].append(
            {
                "image": f"./{image_file}",
                "label": f"./{label_file}",
                "confidence": round(entry.confidence, 6),
            }
        )
        if destination.has(image_file, label_file):
            continue
        sample = labels.sample(entry)
        destination.write(image_file, rgb_png(sample["image"]))
        destination.write(label_file, encode_png(sample["labels"]))
    description = {
        "name": labels.labels.run["fingerprint"]["recipe"]["task"]["name"],
        "description": "Pseudo-labels by salip_ray; not checked by a person",
        "tensorImageSize": "2D",
        "labels": {
            "0": "background",
            **{str(class_id): label for label, class_id in labels.class_ids.items()},
            **({str(labels.ignore_index): "ignore"} if labels.may_ignore else {}),
        },
        "numTraining": len(sections["training"]),
        **sections,
        "test": [],
    }
    destination.write("dataset.json", json.dumps(description, indent=1) + "\n")
    destination.write(PROVENANCE, provenance(labels, parts))
    destination.complete(images_written=len(labels))
    return len(labels)
