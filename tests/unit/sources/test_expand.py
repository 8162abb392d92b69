"""Files become pictures before shards are cut."""

from __future__ import annotations

import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Pil

from salip_ray.config import load_config
from salip_ray.errors import ImageError
from salip_ray.output.manifest import make_manifest
from salip_ray.pipeline.dataflow import block_starts
from salip_ray.sources.decode import open_stack
from salip_ray.sources.expand import expand
from salip_ray.sources.listing import list_images
from salip_ray.sources.locations import image_id
from salip_ray.sources.series import series_of
from tests.dicom_series import STUDY, write_slice


@pytest.fixture
def folder(tmp_path):
    grey = np.zeros((8, 9), np.int16)
    Pil.fromarray(grey.astype(np.uint8)).save(tmp_path / "z.png")
    pages = [Pil.fromarray(grey.astype(np.uint8))] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "page.tif")
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    nibabel.save(volume, tmp_path / "v.nii.gz")
    (tmp_path / "broken.nii").write_bytes(b"nothing")
    for number, position in enumerate((6.0, 0.0, 3.0), start=1):
        write_slice(tmp_path / "ct" / f"{number}.dcm", grey, position, number=number)
    write_slice(tmp_path / "ct" / "again.dcm", grey, 3.0, number=9)
    return tmp_path


def planned(folder, *overrides):
    listing, notes = expand(list_images(folder), load_config("lungs", overrides=overrides))
    return make_manifest(listing, 4), notes


def test_volumes_series_and_pages_become_rows(folder):
    plan, notes = planned(folder)
    rows = plan.frozen.to_pylist()
    slices = {}
    for row in rows:
        name = row["uri"].removeprefix(f"{folder}/")
        slices.setdefault(name, []).append((row["index"], row["slice"]))
    series = {f"ct/{n}.dcm": [(None, position)] for n, position in ((1, 2), (2, 0), (3, 1))}
    assert slices == {
        **series,
        "ct/again.dcm": [(None, 0)],
        "broken.nii": [(None, None)],
        "page.tif": [(None, None)],
        "pages.tif": [(0, 0), (1, 1)],
        "v.nii.gz": [(index, index) for index in range(6)],
        "z.png": [(None, None)],
    }
    assert len({row["image_id"] for row in rows}) == len(rows)
    first = next(row for row in rows if row["index"] == 0 and row["uri"].endswith("gz"))
    assert first["image_id"] == image_id(first["uri"], 0)
    assert first["volume"] == image_id(first["uri"])
    assert len(notes) == 1
    assert "1 duplicate position" in notes[0]
    duplicate = next(row for row in rows if row["uri"].endswith("again.dcm"))
    slices = [row["volume"] for row in rows if row["uri"].endswith("ct/1.dcm")]
    assert duplicate["volume"] not in slices
    assert series_of(duplicate["volume"]) == slices[0]
    assert STUDY not in str(notes + rows)


def test_bare_names_and_archive_members_are_expanded(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for name in ("1", "2", "3"):
        (other / f"IM{name}").write_bytes((folder / "ct" / f"{name}.dcm").read_bytes())
    rows = planned(other)[0].frozen.to_pylist()
    assert {row["uri"].rpartition("/")[2]: row["slice"] for row in rows} == {
        "IM1": 2,
        "IM2": 0,
        "IM3": 1,
    }
    with zipfile.ZipFile(other / "all.zip", "w") as archive:
        archive.write(folder / "v.nii.gz", "v.nii.gz")
        archive.write(folder / "z.png", "z.png")
        archive.write(other / "IM1", "ct/IM1")
        archive.write(other / "IM2", "ct/IM2")
    rows = planned(other / "all.zip")[0].frozen.to_pylist()
    assert [row["slice"] for row in rows if ".nii" in row["uri"]] == list(range(6))
    assert {row["slice"] for row in rows if "/IM" in row["uri"]} == {0, 1}
    assert [row["slice"] for row in rows if "png" in row["uri"]] == [None]


def test_the_axis_decides_how_many(folder):
    rows = planned(folder, "image.axis=sagittal")[0].frozen.to_pylist()
    assert sum(row["uri"].endswith("v.nii.gz") for row in rows) == 4


def test_uids_are_retained_if_the_configuration_says_so(folder):
    rows = planned(folder, "privacy.keep_uids=true")[0].frozen.to_pylist()
    assert {row["volume"] for row in rows if row["uri"].endswith("2.dcm")} == {f"{STUDY}.1"}


def test_the_same_files_give_the_same_manifest(folder):
    assert planned(folder)[0].frozen.equals(planned(folder)[0].frozen)


@pytest.mark.parametrize("actors", [1, 2, 3, 4, 5, 100])
def test_no_block_parts_a_volume(folder, actors):
    table = planned(folder)[0].table
    starts = block_starts(table, actors)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    indices = table["index"].to_pylist()
    assert all(not indices[start] for start in starts)
    if actors == 100:
        assert len(starts) == len(set(table["uri"].to_pylist()))


def test_file_that_declares_too_many_frames_is_one_row(tmp_path):
    """A few bytes that declare billions of slices must not become billions of rows."""
    volume = nibabel.Nifti2Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    data = bytearray(volume.to_bytes())
    data[40:48] = (2**40).to_bytes(8, "little")  # dim[3]
    (tmp_path / "lie.nii").write_bytes(data)
    path = write_slice(tmp_path / "lie.dcm", np.zeros((4, 5), np.int16), 0.0)
    ds = pydicom.dcmread(path)
    ds.NumberOfFrames = 2_000_000_000
    ds.save_as(path)
    plan, _ = planned(tmp_path)
    assert [row["index"] for row in plan.frozen.to_pylist()] == [None, None]
    for name, count in (("lie.nii", 2**40), ("lie.dcm", 2_000_000_000)):
        with pytest.raises(ImageError, match=rf"{count:,} pictures, above image\.max_frames"):
            open_stack((tmp_path / name).read_bytes(), name, load_config("lungs").image)
    shallow = load_config("lungs", overrides=["image.max_frames=1"]).image
    pages = [Pil.fromarray(np.zeros((4, 5), np.uint8))] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="2 pictures, above"):
        open_stack((tmp_path / "pages.tif").read_bytes(), "pages.tif", shallow)


def volumes_of(folder):
    """Slices by volume, in order: (file name, slice)."""
    plan, notes = planned(folder)
    volumes = {}
    for row in plan.frozen.to_pylist():
        name = row["uri"].rpartition("/")[2].removesuffix(".dcm")
        volumes.setdefault(row["volume"], []).append((row["slice"], name))
    return {name: [file for _, file in sorted(rows)] for name, rows in volumes.items()}, notes


def test_time_points_are_volumes_of_one_series(tmp_path):
    grey = np.zeros((8, 9), np.int16)
    for time in (1, 2):
        for n in range(3):
            tags = {"TemporalPositionIdentifier": time, "SOPInstanceUID": f"1.2.{time}{n}"}
            write_slice(tmp_path / f"{n}{time}.dcm", grey, 3.0 * n, number=n, **tags)
    volumes, notes = volumes_of(tmp_path)
    assert sorted(volumes.values()) == [["01", "11", "21"], ["02", "12", "22"]]
    assert len({series_of(name) for name in volumes}) == 1
    assert len(notes) == 1
    assert "is split into 2 volumes: TemporalPositionIdentifier" in notes[0]
    assert STUDY not in notes[0]


def test_mixed_pixel_spacings_are_volumes_of_one_series(tmp_path):
    grey = np.zeros((8, 9), np.int16)
    for n in range(5):
        write_slice(tmp_path / f"{n}.dcm", grey, 3.0 * n, number=n, spacing=(1 + n // 3,) * 2)
    volumes, notes = volumes_of(tmp_path)
    assert sorted(volumes.values()) == [["0", "1", "2"], ["3", "4"]]
    assert len({series_of(name) for name in volumes}) == 1
    assert "split into 2 volumes: PixelSpacing" in notes[0]


def enhanced(path, depth, *, shared):
    """Write an enhanced object of one frame, its geometry in functional groups alone."""
    write_slice(path, np.zeros((8, 9), np.int16), 0.0, number=int(depth) + 1)
    ds = pydicom.dcmread(path)
    del ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing
    position, orientation, measures = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    position.ImagePositionPatient = [0, 0, depth]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [2, 3]
    own, common = pydicom.Dataset(), pydicom.Dataset()
    own.PlanePositionSequence = [position]
    (common if shared else own).PlaneOrientationSequence = [orientation]
    common.PixelMeasuresSequence = [measures]
    ds.NumberOfFrames = 1
    ds.PerFrameFunctionalGroupsSequence = [own]
    ds.SharedFunctionalGroupsSequence = [common]
    ds.save_as(path)


@pytest.mark.parametrize("shared", [True, False])
def test_enhanced_objects_of_one_frame_make_a_volume(tmp_path, shared):
    for name, depth in (("a", 6), ("b", 0), ("c", 3)):
        enhanced(tmp_path / f"{name}.dcm", depth, shared=shared)
    volumes, notes = volumes_of(tmp_path)
    assert list(volumes.values()) == [["b", "c", "a"]]
    assert notes == []


def test_all_that_a_series_holds_has_its_name(tmp_path):
    """Two radiographs without a position, a slice of another orientation and a multi-frame file."""
    grey = np.zeros((8, 9), np.int16)
    write_slice(tmp_path / "ct0.dcm", grey, 0.0, number=1)
    write_slice(tmp_path / "ct1.dcm", grey, 3.0, number=2)
    write_slice(tmp_path / "scout.dcm", grey, 0.0, orientation=(0, 1, 0, 0, 0, -1), number=3)
    lone = write_slice(tmp_path / "xray.dcm", grey, 0.0, number=4)
    several = write_slice(tmp_path / "cine.dcm", np.zeros((16, 9), np.int16), 0.0, number=5)
    for path, rows in ((lone, 8), (several, 8)):
        ds = pydicom.dcmread(path)
        del ds.ImagePositionPatient
        ds.Rows, ds.NumberOfFrames = rows, 2 if path == several else 1
        ds.save_as(path)
    write_slice(tmp_path / "other" / "alone.dcm", grey, 0.0, series="1.2.3")
    volumes, _ = volumes_of(tmp_path)
    assert volumes.pop(None) == ["alone"]
    assert sorted(volumes.values()) == [["cine", "cine"], ["ct0", "ct1"], ["scout"], ["xray"]]
    assert len({series_of(name) for name in volumes}) == 1
