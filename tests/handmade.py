"""An output in the form that a job writes, from existing files and the masks of a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.config import Config
from salip_ray.output.manifest import make_manifest
from salip_ray.output.masks import area, bbox_xywh, encode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.pipeline.decoding.decode import shown_uri
from salip_ray.schema import LABEL_SCHEMA, SCHEMA_VERSION
from salip_ray.sources.expand import expand
from salip_ray.sources.listing import list_images

#: From a manifest row to the masks of its image, by label.
MasksOf = Callable[[Mapping[str, object]], Mapping[str, np.ndarray]]


def write_labels(
    folder: Path, out: Path, config: Config, masks_of: MasksOf, *, rows_per_shard: int = 2
) -> LabelOutput:
    """Label a folder of images with given masks."""
    plan = make_manifest(expand(list_images(folder), config)[0], rows_per_shard)
    ids = {spec.label: spec.class_id for spec in config.task.classes}
    rows = []
    for number, row in enumerate(plan.frozen.to_pylist()):
        masks = masks_of(row)
        height, width = next(iter(masks.values())).shape
        shown = {"uri": shown_uri(plan.table.slice(number, 1), config)}
        rows.append(
            {
                **{name: row[name] for name in ("image_id", "volume", "slice")},
                **shown,
                "height": height,
                "width": width,
                "status": "ok",
                "masks": [_cell(label, ids[label], mask) for label, mask in masks.items()],
            }
        )
    (out / "shards").mkdir(parents=True)
    fingerprint = {"recipe": config.recipe(), "manifest": {"images": plan.n_images}}
    run = {"schema_version": SCHEMA_VERSION, "fingerprint": fingerprint}
    (out / "run.json").write_text(json.dumps(run))
    pq.write_table(plan.frozen, out / "manifest.parquet")
    for shard in range(plan.n_shards):
        table = pa.Table.from_pylist(
            rows[shard * rows_per_shard :][:rows_per_shard], schema=LABEL_SCHEMA
        )
        pq.write_table(table, out / "shards" / f"part-{shard:05d}.parquet")
    return LabelOutput.open(str(out))


def _cell(label: str, class_id: int, mask: np.ndarray) -> dict[str, object]:
    rle = encode_rle(mask)
    cell = {"method": "cascade", "label": label, "class_id": class_id, "rle": rle}
    return {**cell, "bbox": bbox_xywh(rle), "area": area(rle), "clip_score": 1.0, "confidence": 0.5}
