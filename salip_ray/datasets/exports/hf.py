"""Hugging Face datasets: Parquet shards with the images inside, for ``load_dataset(folder)``."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.datasets.exports.cases import (
    PROVENANCE,
    Parts,
    about,
    case_name,
    provenance,
    rgb_png,
)
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError
from salip_ray.output.masks import encode_png

_PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "Image"},
    "confidence": {"dtype": "float32", "_type": "Value"},
    "image_id": {"dtype": "string", "_type": "Value"},
    "uri": {"dtype": "string", "_type": "Value"},
}
_SCHEMA = pa.schema(
    [
        pa.field("image", _PICTURE),
        pa.field("label", _PICTURE),
        pa.field("confidence", pa.float32()),
        pa.field("image_id", pa.string()),
        pa.field("uri", pa.string()),
    ],
    # How the datasets library knows that a struct of bytes is a picture.
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
_PART_NAMES = {"train": "train", "val": "validation"}


def export(
    labels: PseudoLabels,
    location: str,
    *,
    shard_size: int = 500,
    parts: Parts = Parts(),  # noqa: B008  (frozen)
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write ``data/*.parquet`` and ``README.md``; returns the number of images.

    Raises:
        OutputError: the location holds something else.
        InputError: an image cannot be read.
    """
    if shard_size < 1:
        raise ConfigError(f"--shard-size must be at least 1, found {shard_size}")
    destination = Destination(
        location, about("hf", labels, parts, shard_size=shard_size), storage_options
    )
    chosen = parts.of(labels)
    for part, indices in chosen.items():
        starts = range(0, len(indices), shard_size)
        for number, start in enumerate(starts):
            name = f"data/{_PART_NAMES[part]}-{number:05d}-of-{len(starts):05d}.parquet"
            if not destination.has(name):
                destination.write(name, _shard(labels, indices[start : start + shard_size]))
    destination.write("README.md", _card(labels, list(chosen)))
    destination.write(PROVENANCE, provenance(labels, parts))
    destination.complete(images_written=len(labels))
    return len(labels)


def _shard(labels: PseudoLabels, indices: list[int]) -> bytes:
    rows = []
    for index in indices:
        entry = labels.entries[index]
        sample = labels.sample(entry)
        name = case_name(entry)
        rows.append(
            {
                "image": {"bytes": rgb_png(sample["image"]), "path": f"{name}.png"},
                "label": {"bytes": encode_png(sample["labels"]), "path": f"{name}.mask.png"},
                "confidence": entry.confidence,
                "image_id": entry.image_id,
                "uri": entry.uri,
            }
        )
    buffer = io.BytesIO()
    # Small row groups, so that a viewer or a shuffled reader need not take a whole shard.
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), buffer, row_group_size=100)
    return buffer.getvalue()


def _card(labels: PseudoLabels, parts: list[str]) -> str:
    names = ", ".join(f"{class_id} {label}" for label, class_id in labels.class_ids.items())
    files = "\n".join(
        f"      - split: {_PART_NAMES[part]}\n        path: data/{_PART_NAMES[part]}-*.parquet"
        for part in parts
    )
    return f"""---
task_categories:
  - image-segmentation
configs:
  - config_name: default
    data_files:
{files}
---

# Pseudo-labels

{len(labels)} images labelled by salip_ray and checked by nobody. Research use only: not a medical
device.

`label` is a label map: 0 background, {names}; {labels.ignore_index} where nothing should be learnt.
`confidence` is the Dice that the labelling expects of the least certain class. `export.json` says
what made the labels, `provenance.csv` which image each came from.
"""
