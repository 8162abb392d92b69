"""Label volumes in NIfTI: every voxel lies where the standard says."""

from __future__ import annotations

import json
import pathlib

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Pil
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.config import load_config
from salip_ray.datasets.exports.nifti import export_nifti
from salip_ray.datasets.exports.tidy import Tidy
from salip_ray.datasets.reviews import Decision
from salip_ray.datasets.selection import LabelLimits
from salip_ray.output.masks import encode_png
from tests.dicom_series import write_slice
from tests.handmade import write_labels
from tests.unit.datasets.conftest import save_decisions

#: Rows run to the left and back, columns down; slices are neither axial, coronal nor sagittal.
OBLIQUE = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)


def labelled(folder, depths, masks, **geometry):
    """Labels of a series whose files are named against their order; masks by depth."""
    config = load_config("lungs")
    by_uri = {}
    for number, depth in enumerate(sorted(depths, reverse=True), start=1):
        path = folder / "in" / f"{number}.dcm"
        write_slice(path, np.zeros((6, 9)), depth, number=number, **geometry)
        by_uri[str(path)] = masks[depth]
    labels = write_labels(
        folder / "in", folder / "out", config, lambda row: {"lungs": by_uri[row["uri"]]}
    )
    return labels, by_uri


@pytest.fixture
def masks():
    rng = np.random.default_rng(3)
    return {depth: rng.random((6, 9)) < 0.4 for depth in (0.0, 3.0, 6.0, 9.0)}


def test_series_voxels_lie_where_the_standard_says(tmp_path, masks):
    geometry = {"orientation": OBLIQUE, "spacing": (1.5, 2.5)}
    labels, by_uri = labelled(tmp_path, masks, masks, **geometry)
    assert export_nifti(labels, str(tmp_path / "nifti")) == (1, [])
    (file,) = (tmp_path / "nifti").glob("*.nii.gz")
    image = nibabel.load(file)
    values = np.asarray(image.dataobj)
    assert (image.shape, values.dtype) == ((9, 6, 4), np.uint8)
    assert image.header.get_zooms() == pytest.approx((2.5, 1.5, 3.0))
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-5)
    to_voxel = np.linalg.inv(image.affine)
    wanted = np.zeros_like(values)
    for uri, mask in by_uri.items():
        ds = pydicom.dcmread(uri)
        # C.7.6.2.1.1 of the standard's part 3; then from left-back-up to right-front-up.
        across, down = np.array(ds.ImageOrientationPatient[:3]), np.array(OBLIQUE[3:])
        for row, column in np.argwhere(mask):
            x, y, z = ds.ImagePositionPatient + across * 2.5 * column + down * 1.5 * row
            voxel = to_voxel @ (-x, -y, z, 1)
            np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-4)
            wanted[tuple(np.rint(voxel[:3]).astype(int))] = 1
    assert wanted.sum() == sum(mask.sum() for mask in masks.values())
    np.testing.assert_array_equal(values, wanted)


def test_series_are_named_by_id_and_tidying_is_recorded(tmp_path, masks):
    labels, _ = labelled(tmp_path, masks, masks)
    export_nifti(labels, str(tmp_path / "nifti"), tidy=Tidy(largest=True))
    (file,) = (tmp_path / "nifti").glob("*.nii.gz")
    assert file.name == f"{labels.manifest()['volume'][0].as_py()}.nii.gz"
    record = json.loads((tmp_path / "nifti" / "export.json").read_text())
    assert record["tidy"] == {"largest": True, "fill_holes": False, "min_slices": 0}
    assert (record["complete"], record["volumes_written"]) == (True, 1)


def test_gap_is_background_and_noted(tmp_path, masks):
    labels, _ = labelled(tmp_path, (0.0, 3.0, 9.0), masks)
    written, notes = export_nifti(labels, str(tmp_path / "nifti"))
    assert written == 1
    assert notes[0].endswith(": the series lacks 1 slice, background here")
    (file,) = (tmp_path / "nifti").glob("*.nii.gz")
    values = np.asarray(nibabel.load(file).dataobj)
    assert [int(values[:, :, index].sum()) for index in range(4)] == [
        *(masks[0.0].sum(), masks[3.0].sum(), 0, masks[9.0].sum())
    ]


def test_frames_lie_at_the_positions_of_their_functional_groups(tmp_path, masks):
    """An enhanced object whose frames come in any order."""
    depths = (6.0, 0.0, 9.0, 3.0)
    path = write_slice(tmp_path / "in" / "all.dcm", np.zeros((6, 9)), 0.0, spacing=(1.5, 2.5))
    ds = pydicom.dcmread(path)
    ds.NumberOfFrames, ds.PixelData = 4, np.zeros((4, 6, 9), np.int16).tobytes()
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = ds.ImageOrientationPatient
    measures.PixelSpacing = ds.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], []
    for depth in depths:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-10, -20, depth]
        frame.PlanePositionSequence = [position]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
        del ds[name]
    ds.save_as(path)
    labels = write_labels(
        tmp_path / "in",
        tmp_path / "out",
        load_config("lungs"),
        lambda row: {"lungs": masks[depths[row["index"]]]},
    )
    assert export_nifti(labels, str(tmp_path / "nifti")) == (1, [])
    (file,) = (tmp_path / "nifti").glob("*.nii.gz")
    image = nibabel.load(file)
    wanted = [[-2.5, 0, 0, 10], [0, -1.5, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(image.affine, wanted)
    for index, depth in enumerate((0.0, 3.0, 6.0, 9.0)):
        np.testing.assert_array_equal(image.dataobj[:, :, index].T > 0, masks[depth])


def test_a_tilted_gantry_has_no_quaternion(tmp_path, masks):
    labels, by_uri = labelled(tmp_path, masks, masks)
    for uri in by_uri:
        ds = pydicom.dcmread(uri)
        ds.ImagePositionPatient[1] += 0.5 * float(ds.ImagePositionPatient[2])
        ds.save_as(uri)
    assert export_nifti(labels, str(tmp_path / "nifti")) == (1, [])
    (file,) = (tmp_path / "nifti").glob("*.nii.gz")
    image = nibabel.load(file)
    np.testing.assert_allclose(image.affine[:3, 2], (0, -1.5, 3))
    assert image.header["qform_code"] == 0


def test_slices_that_no_affine_describes_are_left_out(tmp_path, masks):
    labels, _ = labelled(tmp_path, (0.0, 3.0, 7.2), {**masks, 7.2: masks[6.0]})
    written, notes = export_nifti(labels, str(tmp_path / "nifti"))
    assert written == 0
    assert notes[0].endswith("is left out: its slices are not evenly spaced (3 to 4.2 mm apart)")


@pytest.fixture
def two_series(tmp_path, masks):
    """Labels of a series whose PixelSpacing is 0, and of a good one."""
    for series, name, spacing in (("1.2.3.1", "a", (0, 0)), ("1.2.3.2", "b", (1, 1))):
        for number, depth in enumerate(sorted(masks), start=1):
            path = tmp_path / "in" / name / f"{number}.dcm"
            write_slice(
                path, np.zeros((6, 9)), depth, number=number, series=series, spacing=spacing
            )
    mask = np.ones((6, 9), np.bool_)
    return write_labels(
        tmp_path / "in", tmp_path / "out", load_config("lungs"), lambda _: {"lungs": mask}
    )


def test_zero_spacing_leaves_out_that_volume_alone(two_series, tmp_path):
    written, (note,) = export_nifti(two_series, str(tmp_path / "nifti"))
    assert written == len(list((tmp_path / "nifti").glob("*.nii.gz"))) == 1
    assert "is left out: its PixelSpacing is" in note


def test_one_damaged_volume_does_not_end_the_export(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        image = nibabel.Nifti1Image(np.zeros((9, 6, 2), np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
        nibabel.save(image, tmp_path / "in" / f"{name}.nii.gz")
    config = load_config("lungs", overrides=["image.skip_blank=false"])
    mask = np.ones((6, 9), np.bool_)
    labels = write_labels(tmp_path / "in", tmp_path / "out", config, lambda _: {"lungs": mask})
    (tmp_path / "in" / "a.nii.gz").write_bytes(b"cut short")
    written, (note,) = export_nifti(labels, str(tmp_path / "nifti"))
    assert written == 1
    assert note.startswith("a is left out: ")
    assert [path.name for path in (tmp_path / "nifti").glob("*.gz")] == ["b.nii.gz"]


def test_hidden_names_stay_out_of_notes(tmp_path, masks):
    labels, by_uri = labelled(tmp_path / "Doe Jane", masks, masks)
    for uri in by_uri:
        pathlib.Path(uri).unlink()
    written, (note,) = export_nifti(labels, str(tmp_path / "nifti"))
    assert written == 0
    assert note.startswith(labels.manifest()["volume"][0].as_py())
    assert "Doe" not in note


def test_decisions_of_reviewers_apply(tmp_path, masks):
    labels, _ = labelled(tmp_path, masks, masks)
    ids = [row["image_id"] for row in sorted(labels.rows(), key=lambda row: row["slice"])]
    drawn = np.zeros((6, 9), np.uint8)
    drawn[1:3, 2:5], drawn[5] = 1, 255
    decisions = {
        ids[0]: Decision("rejected"),
        ids[1]: Decision("corrected", values=(0, 1, 255)),
        ids[2]: Decision("accepted"),
    }
    save_decisions(tmp_path / "out", decisions, {ids[1]: encode_png(drawn)})
    assert export_nifti(labels, str(tmp_path / "nifti")) == (1, [])
    (file,) = (tmp_path / "nifti").glob("*.nii.gz")
    slices = np.asarray(nibabel.load(file).dataobj).T
    assert not slices[0].any()
    np.testing.assert_array_equal(slices[1], drawn)
    np.testing.assert_array_equal(slices[2], masks[6.0])
    np.testing.assert_array_equal(slices[3], masks[9.0])


def test_labels_below_a_limit_become_background(tmp_path, masks):
    labels, _ = labelled(tmp_path, masks, masks)
    least = sorted(int(mask.sum()) for mask in masks.values())[-1]
    limits = LabelLimits(min_area=least)
    written, (note,) = export_nifti(labels, str(tmp_path / "nifti"), limits=limits)
    assert written == 1
    assert note == "3 labels of slices below the limits, background here"
    (file,) = (tmp_path / "nifti").glob("*.nii.gz")
    assert np.count_nonzero(nibabel.load(file).dataobj) == least


def test_an_export_without_a_volume_fails(tmp_path):
    (tmp_path / "in").mkdir()
    Pil.new("L", (9, 6)).save(tmp_path / "in" / "a.png")
    mask = np.ones((6, 9), np.bool_)
    write_labels(tmp_path / "in", tmp_path / "out", load_config("lungs"), lambda _: {"lungs": mask})
    for kind in ("nifti", "dicom-seg"):
        done = CliRunner().invoke(
            app, ["export", kind, str(tmp_path / "out"), str(tmp_path / kind)]
        )
        assert done.exit_code == 1
        assert "nothing was exported" in done.stderr
