"""An output as salip-ray writes it, made without a model: shards, run.json, images."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from salip_ray.config import TaskConfig, load_config
from salip_ray.datasets.reviews import Reviews
from salip_ray.output.commit import parquet_bytes
from salip_ray.output.masks import area, bbox_xywh, encode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store import Store
from salip_ray.schema import LABEL_SCHEMA, MANIFEST_SCHEMA, SCHEMA_VERSION
from salip_ray.sources.locations import image_id

CONFIDENCES = (0.9, 0.3, 0.7, 0.8, 0.5, 0.95)
PRESENCES = (0.9, 0.2, 0.8, 0.7, 0.6, 0.95)


def draw(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture, its two class masks: sizes differ from image to image."""
    height, width = 40 + 2 * index, 56
    left, right = np.zeros((2, height, width), np.bool_)
    left[5:25, 4 + index : 24] = True
    right[8:30, 32:50] = True
    image = np.full((height, width, 3), 30, np.uint8)
    image[left] = 200
    image[right] = 120
    return image, left, right


def cell(
    label: str, class_id: int, mask: np.ndarray, confidence: float, presence: float = 0.99
) -> dict:
    rle = encode_rle(mask)
    proposed = np.roll(mask, 2, axis=0)
    return {
        "method": "cascade",
        "label": label,
        "class_id": class_id,
        "rle": rle,
        "bbox": bbox_xywh(rle),
        "area": area(rle),
        "clip_score": 20.0 + class_id,
        "clip_margin": 1.0,
        "predicted_iou": 0.9,
        "stability_score": 0.9,
        "candidate_ids": [0],
        "prompt_boxes": [],
        "proposed": encode_rle(proposed),
        "agreement": 0.9,
        "confidence": confidence,
        "presence": presence,
    }


def write_output(
    folder: Path,
    rows_per_shard: int = 4,
    names: tuple[str, str] = ("lung", "heart"),
    task: str = "thorax",
) -> Path:
    """Write labels of six images of three patients, an empty and an error row, in shards of 4."""
    output, images = folder / "labels", folder / "images"
    images.mkdir(parents=True)
    rows = []
    for index, confidence in enumerate(CONFIDENCES):
        image, left, right = draw(index)
        path = images / f"patient{index // 2}" / f"view{index}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)
        lung = cell(names[0], 1, left, confidence, PRESENCES[index])
        cells = [lung, cell(names[1], 2, right, 0.99)]
        rows.append((path, image.shape, "ok", cells if index else cells[:1]))
    cv2.imwrite(str(images / "blank.png"), np.full((40, 56), 30, np.uint8))
    rows.append((images / "blank.png", (40, 56), "empty", []))
    rows.append((images / "cut.png", (None, None), "error", None))
    table = [
        {
            "image_id": image_id(str(path)),
            "uri": str(path),
            "height": shape[0],
            "width": shape[1],
            "status": status,
            "outcomes": None,
            "error": None,
            "masks": masks,
            "n_candidates": 3,
        }
        for path, shape, status, masks in rows
    ]
    (output / "shards").mkdir(parents=True)
    for shard, start in enumerate(range(0, len(table), rows_per_shard)):
        part = pa.Table.from_pylist(table[start : start + rows_per_shard], LABEL_SCHEMA)
        (output / "shards" / f"part-{shard:05d}.parquet").write_bytes(parquet_bytes(part))
    manifest = [
        {"image_id": r["image_id"], "uri": r["uri"], "size": 1, "etag": None, "shard": 0}
        for r in table
    ]
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(manifest, MANIFEST_SCHEMA), output / "manifest.parquet")
    prompts = {names[0]: ("a lobe",), names[1]: ("a blob",)}
    config = load_config("lungs")
    recipe = config.model_copy(update={"task": TaskConfig(name=task, prompts=prompts)}).recipe()
    fingerprint = {"recipe": recipe, "manifest": {"images": len(table)}}
    run = {"schema_version": SCHEMA_VERSION, "fingerprint": fingerprint}
    (output / "run.json").write_text(json.dumps(run))
    return output


def save_decisions(output, decisions, label_maps=None) -> None:
    """Add decisions of a reviewer to an output."""
    reviews = Reviews.of(LabelOutput.open(str(output)))
    reviews.save(Store(str(output)), {i: [one] for i, one in decisions.items()}, label_maps or {})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_output(tmp_path)


@pytest.fixture
def scene():
    """The picture and class masks of an image of the output, by its index."""
    return draw
