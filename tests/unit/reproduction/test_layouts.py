"""The downloaded datasets, in tiny copies of their layouts."""

from __future__ import annotations

import csv

import cv2
import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from salip_ray.errors import InputError
from salip_ray.reproduction import layouts


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_lungs_are_paired_by_the_published_mask_name(tmp_path):
    data = tmp_path / "data"
    for name in ("a", "b"):
        write_image(data / "CXR_png" / f"{name}.png", np.full((8, 9), 7, np.uint8))
    write_image(data / "masks" / "a_mask.png", np.full((8, 9), 255, np.uint8))
    write_image(data / "masks" / "b.png", np.full((8, 9), 255, np.uint8))
    prepared = layouts.prepare("lungs", data, tmp_path / "ready")
    assert (prepared.n_files, prepared.unpaired) == (1, 1)
    assert rows(prepared.images) == [{"uri": str(data / "CXR_png" / "a.png")}]
    assert rows(prepared.references)[0]["mask"] == str(data / "masks" / "a_mask.png")


def test_outlines_of_fetal_heads_are_filled(tmp_path):
    data = tmp_path / "training_set"
    outline = np.zeros((40, 50), np.uint8)
    cv2.ellipse(outline, (25, 20), (15, 10), 0, 0, 360, 255, 1)
    write_image(data / "000_HC.png", np.zeros((40, 50), np.uint8))
    write_image(data / "000_HC_Annotation.png", outline)
    prepared = layouts.prepare("fetal-head", data, tmp_path / "ready")
    (row,) = rows(prepared.references)
    assert row["image"] == str(data / "000_HC.png")
    mask = cv2.imread(row["mask"], cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(mask > 0, ndimage.binary_fill_holes(outline))


def test_an_open_outline_is_refused_by_name(tmp_path):
    data = tmp_path / "data"
    write_image(data / "1_HC.png", np.zeros((20, 20), np.uint8))
    write_image(data / "1_HC_Annotation.png", np.eye(20, dtype=np.uint8) * 255)
    with pytest.raises(InputError, match=r"1_HC_Annotation\.png: .*closed outline"):
        layouts.prepare("fetal-head", data, tmp_path / "ready")


@pytest.fixture
def brain(tmp_path):
    """A volume of 60 slices along the first axis, 50 of them with brain, and its reference."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 900, (60, 12, 16)).astype(np.float32)
    stripped = np.zeros_like(voxels)
    stripped[5:55, 3:9, 4:11] = voxels[5:55, 3:9, 4:11] + 1
    data = tmp_path / "Reconstructed"
    for folder, name, values in (
        ("Original/GE_3", "CC0001", voxels),
        ("Silver-standard/GE_3", "CC0001_ss", stripped),
    ):
        (data / folder).mkdir(parents=True)
        volume = nibabel.Nifti1Image(values, np.eye(4))
        nibabel.save(volume, data / folder / f"{name}.nii.gz")
    return data, voxels, stripped


def test_brains_lose_empty_and_end_slices_and_are_turned(tmp_path, brain):
    data, voxels, stripped = brain
    prepared = layouts.prepare("brain", data, tmp_path / "ready")
    (row,) = rows(prepared.references)
    with Image.open(row["image"]) as image, Image.open(row["mask"]) as mask:
        assert image.n_frames == mask.n_frames == 50 - 2 * layouts.END_SLICES
        image.seek(3)
        mask.seek(3)
        at = 5 + layouts.END_SLICES + 3
        assert np.array_equal(np.asarray(image), np.rot90(voxels[at]))
        assert np.array_equal(np.asarray(mask), np.rot90(stripped[at] > 0))


def test_a_resumed_preparation_rewrites_nothing(tmp_path, brain):
    data = brain[0]
    layouts.prepare("brain", data, tmp_path / "ready")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ready").rglob("*.*")}
    layouts.prepare("brain", data, tmp_path / "ready")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_brain_of_few_slices_is_refused_with_the_number_needed(tmp_path, brain):
    data = brain[0]
    (mask,) = data.rglob("*_ss.nii.gz")
    few = np.zeros((60, 12, 16), np.float32)
    few[10:40] = 1
    nibabel.save(nibabel.Nifti1Image(few, np.eye(4)), mask)
    with pytest.raises(InputError, match="30 slices with brain: more than 40 are needed"):
        layouts.prepare("brain", data, tmp_path / "ready")


@pytest.mark.parametrize("dataset", sorted(layouts.LAYOUTS))
def test_a_folder_without_the_dataset_is_refused_with_the_names_expected(tmp_path, dataset):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"expected .*NAME"):
        layouts.prepare(dataset, tmp_path / "data", tmp_path / "ready")
    with pytest.raises(InputError, match="is not a folder"):
        layouts.prepare(dataset, tmp_path / "nothing", tmp_path / "ready")
