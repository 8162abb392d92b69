"""DICOM Segmentations: the pixels of each class at their slices."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread

from salip_ray.config import load_config
from salip_ray.datasets.exports.dicom_seg import export_dicom_seg
from salip_ray.datasets.exports.volumes import VolumeLabels
from salip_ray.datasets.reviews import Decision
from salip_ray.errors import OutputError
from salip_ray.output.masks import encode_png
from tests.dicom_series import write_slice
from tests.handmade import write_labels
from tests.unit.datasets.conftest import save_decisions

CLASSES = ("liver", "spleen", "nothing")


@pytest.fixture
def labelled(tmp_path):
    """Labels of a series of three slices named against their order, and of a lone image."""
    grey = np.zeros((8, 9), np.int16)
    for number, depth in enumerate((6.0, 0.0, 3.0), start=1):
        write_slice(tmp_path / "in" / f"{number}.dcm", grey, depth, number=number)
    write_slice(tmp_path / "in" / "lone.dcm", grey, 3.0, number=9, series="1.2.3.4")
    config = load_config({"task": {"name": "organs", "prompts": {name: ["x"] for name in CLASSES}}})
    rng, masks = np.random.default_rng(0), {}

    def masks_of(row):
        drawn = {name: rng.random((8, 9)) < 0.4 for name in ("liver", "spleen")}
        return masks.setdefault(row["uri"].rpartition("/")[2], drawn)

    return write_labels(tmp_path / "in", tmp_path / "out", config, masks_of), masks


def test_every_pixel_is_at_its_slice(labelled, tmp_path):
    labels, masks = labelled
    written, notes = export_dicom_seg(labels, str(tmp_path / "seg"))
    assert (written, notes) == (2, [])
    by_uid = {}
    for name, of_file in masks.items():
        by_uid[str(pydicom.dcmread(tmp_path / "in" / name).SOPInstanceUID)] = of_file
    compared = 0
    for path in (tmp_path / "seg").glob("*.dcm"):
        seg = segread(path)
        assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
        assert seg.PatientID == "PID-77123"
        assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == [
            "liver",
            "spleen",
        ]
        uids = [uid for _, _, uid in seg.get_source_image_uids()]
        pixels = seg.get_pixels_by_source_instance(uids)
        for uid, planes in zip(uids, pixels, strict=True):
            np.testing.assert_array_equal(planes[..., 0] > 0, by_uid[uid]["liver"])
            np.testing.assert_array_equal(planes[..., 1] > 0, by_uid[uid]["spleen"])
            compared += 1
    assert compared == 4


def test_the_same_export_gives_the_same_uids(labelled, tmp_path):
    labels, _ = labelled
    uids = []
    for name in ("a", "b"):
        export_dicom_seg(labels, str(tmp_path / name))
        paths = sorted((tmp_path / name).glob("*.dcm"))
        uids.append([pydicom.dcmread(path).SOPInstanceUID for path in paths])
    assert uids[0] == uids[1]


def test_other_pixels_give_other_uids(labelled, tmp_path, monkeypatch):
    labels, _ = labelled
    export_dicom_seg(labels, str(tmp_path / "a"))
    masks_of = VolumeLabels.masks

    def moved(self, row):
        return {key: np.roll(mask, 1, axis=0) for key, mask in masks_of(self, row).items()}

    monkeypatch.setattr(VolumeLabels, "masks", moved)
    export_dicom_seg(labels, str(tmp_path / "b"))
    for path in (tmp_path / "a").glob("*.dcm"):
        one, other = (pydicom.dcmread(tmp_path / where / path.name) for where in "ab")
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert one.SeriesInstanceUID != other.SeriesInstanceUID


def test_missing_source_is_noted_without_its_name(labelled, tmp_path):
    labels, _ = labelled
    (tmp_path / "in" / "lone.dcm").unlink()
    written, (note,) = export_dicom_seg(labels, str(tmp_path / "seg"))
    assert written == 1
    assert "does not exist" in note
    assert str(tmp_path) not in note


def test_volume_without_labels_gives_no_object(labelled, tmp_path):
    labels, _ = labelled
    written, notes = export_dicom_seg(labels, str(tmp_path / "seg"), method="gt_sam")
    assert written == 0
    assert all("nothing was labelled" in note for note in notes)


def test_a_series_that_is_not_complete_is_refused(labelled, tmp_path):
    labels, _ = labelled
    (tmp_path / "out" / "shards" / "part-00001.parquet").unlink()
    with pytest.raises(OutputError, match="not complete"):
        export_dicom_seg(labels, str(tmp_path / "seg"))


def test_export_into_the_output_is_refused(labelled, tmp_path):
    labels, _ = labelled
    with pytest.raises(OutputError, match="give a location outside of it"):
        export_dicom_seg(labels, str(tmp_path / "out" / "seg"))


def test_attributes_that_an_anonymiser_deleted_may_be_empty(labelled, tmp_path):
    labels, _ = labelled
    for path in (tmp_path / "in").iterdir():
        ds = pydicom.dcmread(path)
        for name in ("PatientName", "PatientBirthDate", "AccessionNumber", "StudyTime"):
            del ds[name]
        if path.name == "lone.dcm":
            del ds["StudyInstanceUID"]  # this may not
        ds.save_as(path)
    written, (note,) = export_dicom_seg(labels, str(tmp_path / "seg"))
    assert written == 1
    assert "its source allows no segmentation" in note
    assert "StudyInstanceUID" in note
    (path,) = (tmp_path / "seg").glob("*.dcm")
    assert segread(path).PatientBirthDate in {None, ""}


def test_decisions_of_reviewers_apply(labelled, tmp_path):
    labels, _ = labelled
    ids = {row["image_id"]: row["volume"] for row in labels.rows()}
    (lone,) = (image_id for image_id, volume in ids.items() if volume is None)
    drawn = np.zeros((8, 9), np.uint8)
    drawn[2:4, 3:6], drawn[7] = 3, 255
    rejected = {image_id: Decision("rejected") for image_id in ids if image_id != lone}
    corrected = {lone: Decision("corrected", values=(0, 3, 255))}
    save_decisions(tmp_path / "out", rejected | corrected, {lone: encode_png(drawn)})
    written, (note,) = export_dicom_seg(labels, str(tmp_path / "seg"))
    assert written == 1
    assert "nothing was labelled" in note
    seg = segread(tmp_path / "seg" / f"{lone}.dcm")
    assert seg.get_segment_description(1).segment_label == "nothing"
    np.testing.assert_array_equal(seg.pixel_array.squeeze(), drawn == 3)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (None, "Doe^Jane"),
    ],
)
def test_any_character_set_and_class_name_is_written(tmp_path, charset, name):
    path = write_slice(tmp_path / "in" / "a.dcm", np.zeros((8, 9)), 0.0)
    ds = pydicom.dcmread(path)
    if charset is not None:
        ds.SpecificCharacterSet = charset
    ds.PatientName = name
    ds.save_as(path)
    prompts = {"肝臓": ["x"], "a\\b": ["y"], "naïve": ["z"]}
    config = load_config({"task": {"name": "organs", "prompts": prompts}})
    mask = np.ones((8, 9), np.bool_)
    labels = write_labels(
        tmp_path / "in", tmp_path / "out", config, lambda _: dict.fromkeys(prompts, mask)
    )
    assert export_dicom_seg(labels, str(tmp_path / "seg")) == (1, [])
    (file,) = (tmp_path / "seg").glob("*.dcm")
    seg = segread(file)
    assert seg.PatientName == name
    names = [seg.get_segment_description(n).segment_label for n in seg.segment_numbers]
    assert names == ["肝臓", "a_b", "naïve"]
