"""A small run to report on: phantoms with labels of several methods, an empty one, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from salip_ray.models.bundled.phantoms import TARGETS, make_phantom
from salip_ray.output.masks import encode_rle
from salip_ray.sources.locations import image_id


def mask_cell(mask, method="cascade", **figures):
    defaults = {
        "clip_score": 50.0,
        "clip_margin": 1.0,
        "predicted_iou": 0.9,
        "stability_score": 0.8,
    }
    return {
        "method": method,
        "label": "lungs",
        "class_id": 1,
        "rle": encode_rle(mask),
        "area": int(mask.sum()),
        "candidate_ids": [3],
        "prompt_boxes": [[10.0, 10.0, 500.0, 600.0]],
        **defaults,
        **figures,
    }


def ranked(candidate_id, box, *, retrieved):
    return {
        "label": "lungs",
        "class_id": 1,
        "candidate_id": candidate_id,
        "retrieved": retrieved,
        "clip_score": 50.0 if retrieved else 42.0,
        "predicted_iou": 0.9,
        "stability_score": 0.8,
        "box": box,
    }


def label_row(uri, shape, masks, **values):
    return {
        "image_id": image_id(uri),
        "uri": uri,
        "height": shape[0],
        "width": shape[1],
        "status": "ok" if masks else "empty",
        "outcomes": [{"label": "lungs", "outcome": "labelled", "reason": ""}]
        if masks
        else [{"label": "lungs", "outcome": "empty", "reason": "SAM proposed no candidate"}],
        "error": None,
        "masks": masks,
        "n_candidates": 7,
        "ranking": [
            ranked(3, [10.0, 10.0, 500.0, 600.0], retrieved=True),
            ranked(5, [20.0, 30.0, 300.0, 400.0], retrieved=False),
        ]
        if masks
        else [],
        **values,
    }


def error_row(uri, message="the file is empty (0 bytes)"):
    return {
        "image_id": image_id(uri),
        "uri": uri,
        "status": "error",
        "error": {"stage": "decode", "type": "ImageError", "message": message},
    }


@pytest.fixture
def run(write_output, tmp_path) -> Path:
    """Six phantoms in two shards, the last of them unlabelled, one gone since, and two errors."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = []
    for index in range(6):
        phantom = make_phantom("chest_xray", index, bank="tune", size=96 + 8 * index)
        path = folder / f"xray-{index}.png"
        Image.fromarray(phantom.image).save(path)
        mask = phantom.mask(TARGETS["chest_xray"])
        cells = [
            mask_cell(mask, predicted_iou=0.5 + 0.08 * index, clip_score=40.0 + index),
            mask_cell(mask, "gt_sam", clip_score=np.nan, clip_margin=np.nan),
        ]
        rows.append(label_row(str(path), mask.shape, cells if index < 5 else []))
    (folder / "xray-1.png").unlink()
    errors = [
        error_row("/in/<b>no&name.png"),
        error_row("/in/cut.png", "corrupt or truncated: <script>alert(1)</script>"),
    ]
    out = write_output(rows[:4], [*rows[4:], *errors])
    (out / "stats").mkdir()
    for shard, n in enumerate((4, 4)):
        seconds = {"fetch": 0.4, "propose": 4.0, "refine": 0}
        counts: dict[str, object] = {name: {} for name in ("status", "outcomes", "errors", "files")}
        stats = {"shard": shard, "rows": n, "seconds": seconds, **counts}
        (out / "stats" / f"part-{shard:05d}.json").write_text(json.dumps(stats))
    return out
