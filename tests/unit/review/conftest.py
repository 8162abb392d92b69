"""Outputs to review, and the page of each."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.review.page import make_page
from salip_ray.review.selection import choose
from salip_ray.sources.locations import image_id
from tests.unit.datasets.conftest import cell, draw
from tests.unit.datasets.conftest import write_output as write_thorax
from tests.unit.review.mixed import write_mixed


@pytest.fixture
def thorax(tmp_path: Path) -> Path:
    """Six images with lung and heart, of sizes that differ, one empty image and one error row."""
    return write_thorax(tmp_path / "thorax")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Thirty images: PNGs, DICOM files with hidden names, and slices of a NIfTI file."""
    return write_mixed(tmp_path)


@pytest.fixture
def volume(write_output, tmp_path: Path) -> Path:
    """A NIfTI volume of five slices of 16-bit values; the first and last have no label."""
    file = tmp_path / "deep.nii.gz"
    nibabel.save(nibabel.Nifti1Image(deep_values(), np.eye(4)), file)
    mask = np.zeros((30, 40), np.bool_)
    mask[10:20, 5:30] = True
    rows = [
        {
            "image_id": image_id(str(file), number),
            "uri": str(file),
            "height": 30,
            "width": 40,
            "status": "ok" if 0 < number < 4 else "empty",
            "masks": [cell("lungs", 1, mask, 0.9 - 0.1 * number)] if 0 < number < 4 else [],
            "volume": "a" * 32,
            "slice": number,
        }
        for number in range(5)
    ]
    return write_output(rows)


def deep_values() -> np.ndarray:
    """Voxels [40, 30, 5]: a faint square of 20 on 1,000 in a volume that reaches to 30,000."""
    values = np.full((40, 30, 5), 1000, np.int16)
    values[10:30, 10:20] = 1020
    values[:4, :4] = 30_000
    values[-4:, :4] = -1000
    return values


@pytest.fixture
def write_page(tmp_path: Path):
    """Write the review page of an output; return its file and the images in its order."""

    def write(output, *, limit=200, **options):
        labels = PseudoLabels(str(output), negatives=True, **options)
        entries = choose(labels, limit)
        file = tmp_path / "review.html"
        file.write_bytes(make_page(labels, entries, "thorax").data)
        return file, entries

    return write


@pytest.fixture
def scene():
    """The picture and class masks of an image of the thorax, by its index."""
    return draw
