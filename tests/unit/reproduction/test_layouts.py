"""The downloaded datasets, in tiny copies of their layouts."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from scipy import ndimage

from salip_ray.config import ImageConfig
from salip_ray.errors import InputError
from salip_ray.output.store import Store
from salip_ray.reproduction import layouts
from salip_ray.reproduction.prepared_files import END_SLICES, fill_outline, search_slices
from salip_ray.sources.formats import nifti


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def prepare(dataset, data, tmp_path, **options):
    return layouts.prepare(dataset, data, Store(tmp_path / "out"), seed=0, **options)


def masks_of(listing):
    with Path(listing.references).open(newline="") as file:
        return {row["image"]: row["mask"] for row in csv.DictReader(file)}


@pytest.fixture
def xrays(tmp_path):
    """Nine X-rays, of which the last one has a mask by the name of the image."""
    data = tmp_path / "data"
    for name in range(9):
        write_image(data / "CXR_png" / f"{name}.png", np.full((8, 9), 7, np.uint8))
        mask = f"{name}_mask.png" if name < 8 else f"{name}.png"
        write_image(data / "masks" / mask, np.full((8, 9), 255, np.uint8))
    return data


def test_lungs_are_paired_by_the_published_mask_name(tmp_path, xrays):
    prepared = prepare("lungs", xrays, tmp_path)
    assert prepared.unpaired == 1
    assert prepared.everything.uris == tuple(str(xrays / "CXR_png" / f"{n}.png") for n in range(8))
    image = prepared.everything.uris[3]
    assert masks_of(prepared.everything)[image] == str(xrays / "masks" / "3_mask.png")
    assert Path(prepared.everything.images).read_text().splitlines()[:2] == [
        "uri",
        prepared.everything.uris[0],
    ]


def test_files_of_the_search_are_drawn_by_the_seed_and_never_scored(tmp_path, xrays):
    prepared = prepare("lungs", xrays, tmp_path)
    assert len(prepared.tuning.uris) == 5
    assert set(prepared.tuning.uris) | set(prepared.scored.uris) == set(prepared.everything.uris)
    assert not set(prepared.tuning.uris) & set(prepared.scored.uris)
    assert prepare("lungs", xrays, tmp_path) == prepared
    other = layouts.prepare("lungs", xrays, Store(tmp_path / "out"), seed=1)
    assert other.tuning.uris != prepared.tuning.uris


def test_limit_takes_the_first_files(tmp_path, xrays):
    prepared = prepare("lungs", xrays, tmp_path, limit=6)
    assert [Path(uri).stem for uri in prepared.everything.uris] == list("012345")
    with pytest.raises(InputError, match="at least 6 are needed"):
        prepare("lungs", xrays, tmp_path, limit=5)


def ellipse(centre):
    outline = np.zeros((40, 50), np.uint8)
    cv2.ellipse(outline, centre, (15, 10), 0, 0, 360, 255, 1)
    return outline


def write_heads(data, outline):
    for name in range(6):
        write_image(data / f"{name}_HC.png", np.zeros((40, 50), np.uint8))
        write_image(data / f"{name}_HC_Annotation.png", outline)


def test_outlines_of_fetal_heads_are_filled(tmp_path):
    outline = ellipse((25, 20))
    write_heads(tmp_path / "training_set", outline)
    prepared = prepare("fetal-head", tmp_path / "training_set", tmp_path)
    for image, mask in masks_of(prepared.everything).items():
        filled = cv2.imread(mask, cv2.IMREAD_GRAYSCALE)
        assert Path(image).parent == tmp_path / "training_set"
        assert np.array_equal(filled > 0, ndimage.binary_fill_holes(outline))


def test_the_border_of_the_image_closes_an_outline_that_it_cuts():
    whole = cv2.copyMakeBorder(ellipse((8, 20)), 0, 0, 20, 0, cv2.BORDER_CONSTANT)
    cv2.ellipse(whole, (28, 20), (15, 10), 0, 0, 360, 255, 1)
    filled = fill_outline(np.ascontiguousarray(whole[:, 20:]))
    assert np.array_equal(filled > 0, ndimage.binary_fill_holes(whole)[:, 20:])


@pytest.mark.parametrize("outline", [np.eye(20), np.zeros((20, 20))], ids=["open", "empty"])
def test_an_outline_that_encloses_nothing_is_refused_by_name(tmp_path, outline):
    write_heads(tmp_path / "data", (outline * 255).astype(np.uint8))
    with pytest.raises(InputError, match=r"0_HC_Annotation\.png: .*closed outline"):
        prepare("fetal-head", tmp_path / "data", tmp_path)


def write_brain(data, name, voxels, mask):
    for folder, file, values in (
        ("Original/GE_3", name, voxels),
        ("Silver-standard/GE_3", f"{name}_ss", mask),
    ):
        (data / folder).mkdir(parents=True, exist_ok=True)
        volume = nibabel.Nifti1Image(values, np.diag([-1.0, 1.5, 2.0, 1.0]))
        nibabel.save(volume, data / folder / f"{file}.nii.gz")


@pytest.fixture
def brains(tmp_path):
    """Three volumes of 60 slices along the first axis, 52 of them with brain, and references."""
    data = tmp_path / "Reconstructed"
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 900, (60, 12, 16)).astype(np.int16)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[5:57, 3:9, 4:11] = rng.random((52, 6, 7)) < 0.8
    for name in ("CC0001", "CC0002", "CC0003"):
        write_brain(data, name, voxels, mask)
    return data, voxels, mask


def slices_of(uri):
    """Return the sagittal slices of a volume, as a job cuts them."""
    values, grid = nifti.read_labels(Path(uri).read_bytes(), ImageConfig(axis="sagittal"))
    return [grid.plane(values, index) for index in range(grid.count)], grid.spacing


def test_brains_lose_empty_and_end_slices_and_are_turned(tmp_path, brains):
    data, voxels, mask = brains
    prepared = prepare("brain", data, tmp_path)
    assert [len(listing.uris) for listing in (prepared.everything, prepared.scored)] == [3, 1]
    for image, reference in masks_of(prepared.everything).items():
        for uri, values in ((image, voxels), (reference, mask > 0)):
            slices, spacing = slices_of(uri)
            assert spacing == (2.0, 1.5)
            used = values[5 + END_SLICES : 57 - END_SLICES]
            assert np.array_equal(slices, [np.rot90(each) for each in used])


def test_the_search_on_brains_uses_the_published_slices(tmp_path, brains):
    data, voxels, _ = brains
    prepared = prepare("brain", data, tmp_path)
    assert list(search_slices(12)) == [2, 4, 6, 8, 10]
    assert list(search_slices(133)) == [26, 52, 78, 104, 130]
    for uri in prepared.tuning.uris:
        slices, _ = slices_of(uri)
        used = voxels[5 + END_SLICES :][[2, 4, 6, 8, 10]]
        assert np.array_equal(slices, [np.rot90(each) for each in used])


def test_a_resumed_preparation_rewrites_no_volume(tmp_path, brains):
    prepare("brain", brains[0], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("out/data/*/*.gz")}
    assert len(before) == 2 * (3 + 2)
    prepare("brain", brains[0], tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_brain_of_few_slices_is_refused_with_the_number_needed(tmp_path, brains):
    data, voxels, mask = brains
    mask[35:] = 0
    write_brain(data, "CC0001", voxels, mask)
    with pytest.raises(InputError, match="30 slices with brain: more than 40 are needed"):
        prepare("brain", data, tmp_path)


@pytest.mark.parametrize("dataset", sorted(layouts.LAYOUTS))
def test_a_folder_without_the_dataset_is_refused_with_the_names_expected(tmp_path, dataset):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"expected .*NAME"):
        prepare(dataset, tmp_path / "data", tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        prepare(dataset, tmp_path / "nothing", tmp_path)
