"""An output of 30 images: PNGs, DICOM files with hidden names, and slices of a NIfTI file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.config import TaskConfig, load_config
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.schema import LABEL_SCHEMA, MANIFEST_SCHEMA, SCHEMA_VERSION
from salip_ray.sources.locations import image_id
from salip_ray.sources.privacy import pseudonym
from tests.dicom_series import write_slice
from tests.unit.datasets.conftest import cell

SHAPE = (37, 45)


def run(*arguments: object) -> str:
    """Run a command of ``salip-ray``; return what it prints."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: object) -> str:
    """Run a command that refuses its input; return the message."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 2, done.output
    return done.output


def label_maps(output: Path) -> dict[str, np.ndarray]:
    """Return the label map of each image by its id, in the order of the output."""
    labels = PseudoLabels(str(output))
    return {entry.image_id: labels.label_map(entry) for entry in labels.entries}


def masks_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lung and heart of an image [H, W]; every third has no heart."""
    lung, heart = np.zeros((2, *SHAPE), np.bool_)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lung[np.hypot(y - 18, x - 12 - number % 4) < 8.5] = True
    if number % 3:
        heart[10 + number % 5 : 30, 28:40] = True
    return lung, heart


def write_mixed(folder: Path) -> Path:
    """Write the output and its images into a folder; return the output."""
    images, output = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    (output / "shards").mkdir(parents=True)
    pictures = [
        np.where(lung, 200, np.where(heart, 120, 40)).astype(np.uint8)
        for lung, heart in map(masks_of, range(30))
    ]
    located: list[tuple[str, int | None]] = []
    for number in range(10):
        file = images / f"view{number}.png"
        cv2.imwrite(str(file), pictures[number])
        located.append((str(file), None))
    for number in range(10, 20):
        file = images / f"MEIER^ERIKA-{number}.dcm"
        write_slice(file, pictures[number].astype(np.int16) * 4, number, number=number)
        located.append((str(file), None))
    volume = np.stack([picture[::-1].T for picture in pictures[20:]], axis=-1)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4)), images / "v.nii.gz")
    located += [(str(images / "v.nii.gz"), index) for index in range(10)]
    rows = [_row(number, *location) for number, location in enumerate(located)]
    table = pa.Table.from_pylist(rows, LABEL_SCHEMA)
    pq.write_table(table, output / "shards/part-00000.parquet")
    manifest = [
        {"image_id": row["image_id"], "uri": uri, "size": 1, "shard": 0, "index": index}
        for row, (uri, index) in zip(rows, located, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(manifest, MANIFEST_SCHEMA), output / "manifest.parquet")
    task = TaskConfig(name="thorax", prompts={"lung": ("a lobe",), "heart": ("a blob",)})
    recipe = load_config("lungs").model_copy(update={"task": task}).recipe()
    run = {"schema_version": SCHEMA_VERSION, "fingerprint": {"recipe": recipe}}
    (output / "run.json").write_text(json.dumps(run))
    return output


def _row(number: int, uri: str, index: int | None) -> dict[str, Any]:
    name = image_id(uri, index)
    lung, heart = masks_of(number)
    cells = [cell("lung", 1, lung, 0.5 + number / 100)]
    cells += [cell("heart", 2, heart, 0.9)] if heart.any() else []
    return {
        "image_id": name,
        "uri": pseudonym(name) if uri.endswith(".dcm") else uri,
        "height": SHAPE[0],
        "width": SHAPE[1],
        "status": "ok",
        "masks": cells,
        "volume": None if index is None else "b" * 32,
        "slice": index,
    }
