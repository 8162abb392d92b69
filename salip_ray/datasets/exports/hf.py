"""Hugging Face datasets: Parquet shards with the images inside, for ``load_dataset(folder)``."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.datasets.exports.cases import (
    NO_SPLIT,
    Split,
    case_name,
)
from salip_ray.datasets.exports.frame import image_export, write_shards
from salip_ray.datasets.exports.pixels import image_png
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.layout import label_map_member
from salip_ray.output.masks import encode_png
from salip_ray.wording import counted

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
    # Tells the datasets library that a struct of bytes is a picture.
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
_PART_NAMES = {"train": "train", "val": "validation"}


def export(
    labels: PseudoLabels,
    location: str,
    *,
    shard_size: int = 500,
    split: Split = NO_SPLIT,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write ``data/*.parquet`` and ``README.md``; return the number of images.

    Raises:
        ConfigError: ``shard_size`` is below 1.
        OutputError: the location holds something else.
        InputError: no image can be read; a single one is left out and listed.
    """
    with image_export("hf", labels, location, split, storage_options, shard_size=shard_size) as (
        destination,
        reader,
    ):
        write_shards(
            destination,
            reader,
            labels,
            split,
            shard_size,
            name=lambda part, number, count: (
                f"data/{_PART_NAMES[part]}-{number:05d}-of-{count:05d}.parquet"
            ),
            shard=partial(_shard, reader),
        )
        written = reader.finish(len(labels))
        destination.write("README.md", _card(labels, list(split.parts(labels)), written))
        return written


def _shard(reader: Unreadable, entries: Sequence[Entry]) -> bytes:
    rows = []
    for entry in entries:
        sample = reader.sample(entry)
        if sample is None:
            continue
        name = case_name(entry)
        rows.append(
            {
                "image": {"bytes": image_png(sample["image"]), "path": f"{name}.png"},
                "label": {"bytes": encode_png(sample["labels"]), "path": label_map_member(name)},
                "confidence": None if math.isnan(entry.confidence) else entry.confidence,
                "image_id": entry.image_id,
                "uri": entry.uri,
            }
        )
    buffer = io.BytesIO()
    # Small row groups, so that a viewer or a shuffled reader does not fetch a whole shard.
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), buffer, row_group_size=100)
    return buffer.getvalue()


def _card(labels: PseudoLabels, parts: list[str], written: int) -> str:
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

{counted(written, "image")} labelled by salip_ray. No person checked the labels, except for the
decisions that `export.json` counts. Research use only: not a medical device.

`label` is a label map: 0 background, {names}; {labels.ignore_index} marks pixels to ignore.
`confidence` is the Dice that the labelling expects of the least certain class. `export.json`
records what made the labels, `provenance.csv` the image that each one came from.
"""
