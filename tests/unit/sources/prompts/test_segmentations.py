"""DICOM Segmentations as prompts: the classes and images of their frames, and what is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

from salip_ray.cascade.geometry import reference_boxes
from salip_ray.config import load_config
from salip_ray.errors import ImageError, InputError
from salip_ray.pipeline.decoding.annotations import find_prompts
from salip_ray.schema import ImageRef
from salip_ray.sources.coco_masks import encode_mask
from salip_ray.sources.formats import dicom
from salip_ray.sources.prompts import Prompts
from tests.dicom_series import write_slice

CONFIG = load_config({"task": {"name": "o", "prompts": {"liver": ["x"], "spleen": ["y"]}}})
CLASSES = CONFIG.task.classes
SIZE = (20, 30)


def mask(y0, y1, x0, x1):
    drawn = np.zeros(SIZE, np.uint8)
    drawn[y0:y1, x0:x1] = 1
    return drawn


LIVER, SPLEEN = mask(2, 9, 3, 12), mask(11, 15, 20, 27)


@pytest.fixture
def series(tmp_path):
    """Three slices, named against their order."""
    grey = np.arange(SIZE[0] * SIZE[1], dtype=np.int16).reshape(SIZE)
    return [
        write_slice(tmp_path / "in" / f"{9 - n}.dcm", grey, 3.0 * n, number=n + 1) for n in range(3)
    ]


def write_seg(path, files, planes, labels=("liver", "spleen"), kind="BINARY"):
    """Write a segmentation of planes [n, H, W, classes]."""
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.BodyStructure,
            segmented_property_type=codes.SCT.Organ,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(labels, start=1)
    ]
    Segmentation(
        source_images=[pydicom.dcmread(file) for file in files],
        pixel_array=np.asarray(planes),
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid="1.2.3",
        series_number=1,
        sop_instance_uid="1.2.3.4",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="0",
    ).save_as(path)
    return path


def planes():
    """The liver on the first two slices, the spleen on the second."""
    stacked = np.zeros((3, *SIZE, 2), np.uint8)
    stacked[:2, ..., 0], stacked[1, ..., 1] = LIVER, SPLEEN
    return stacked


def prompts_of(prompts, file):
    stack = dicom.read(file.read_bytes(), CONFIG.image)
    return find_prompts(ImageRef(str(file)), stack.picture(0), CONFIG, prompts, stack)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_each_slice_has_the_boxes_of_its_segments(series, tmp_path, kind):
    pixels = planes().astype(np.float32) * 0.9 if kind == "FRACTIONAL" else planes()
    prompts = Prompts.open(str(write_seg(tmp_path / "s.dcm", series, pixels, kind=kind)), CLASSES)
    liver, spleen = (
        (label, reference_boxes(drawn > 0)[0])
        for label, drawn in (("liver", LIVER), ("spleen", SPLEEN))
    )
    assert [prompts_of(prompts, file) for file in series] == [[liver], [liver, spleen], []]
    assert prompts.among([ImageRef("/in/a.png"), ImageRef("/in/IM0001")]) is prompts
    with pytest.raises(InputError, match="no image of the input is a DICOM file"):
        prompts.among([ImageRef("/in/a.png")])


def test_a_folder_has_several_and_the_digest_is_of_the_pixels(series, tmp_path):
    (tmp_path / "segs").mkdir()
    one = write_seg(tmp_path / "segs" / "a.dcm", series[:1], planes()[:1])
    write_seg(tmp_path / "segs" / "b.dcm", series[1:], planes()[1:])
    (tmp_path / "segs" / "export.json").write_text("{}")
    both = Prompts.open(str(tmp_path / "segs"), CLASSES)
    whole = Prompts.open(str(write_seg(tmp_path / "s.dcm", series, planes())), CLASSES)
    assert both.segments == whole.segments
    assert both.sha256 == whole.sha256 != Prompts.open(str(one), CLASSES).sha256


def test_frames_of_a_multi_frame_object_have_their_own_masks():
    rle = encode_mask(LIVER)
    named = Prompts("s.dcm", "", segments={"1.2": json.dumps([[1, "liver", rle, None]])})
    assert named.segmented("1.2", 0, SIZE) == {}
    assert np.array_equal(named.segmented("1.2", 1, SIZE)["liver"], LIVER > 0)
    assert named.segmented(None, 1, SIZE) == named.segmented("1.3", 1, SIZE) == {}
    unnamed = Prompts("s.dcm", "", segments={"1.2": json.dumps([[None, "liver", rle, None]])})
    assert np.array_equal(unnamed.segmented("1.2", None, SIZE)["liver"], LIVER > 0)
    with pytest.raises(ImageError, match="does not name the frame"):
        unnamed.segmented("1.2", 0, SIZE)


def test_an_image_of_another_size_is_refused(series, tmp_path):
    prompts = Prompts.open(str(write_seg(tmp_path / "s.dcm", series, planes())), CLASSES)
    other = write_slice(tmp_path / "x.dcm", np.zeros((10, 30), np.int16), 0.0, number=1)
    with pytest.raises(ImageError, match="its segmentation has 20 x 30 pixels, its image 10 x 30"):
        prompts_of(prompts, other)


@pytest.mark.parametrize("change", ["mirrored", "moved", "coarser", "within a pixel", "unknown"])
def test_a_segmentation_that_lies_elsewhere_is_refused(series, tmp_path, change):
    path = write_seg(tmp_path / "s.dcm", series, planes())
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    if change == "mirrored":
        turned = shared.PlaneOrientationSequence[0]
        turned.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    if change == "coarser":
        shared.PixelMeasuresSequence[0].PixelSpacing = [9, 9]
    shift = {"moved": 7.0, "within a pixel": 0.4}.get(change, 0.0)
    for group in ds.PerFrameFunctionalGroupsSequence:
        x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
        group.PlanePositionSequence[0].ImagePositionPatient = [x + shift, y, z]
        if change == "unknown":
            del group.PlanePositionSequence
    ds.save_as(path)
    prompts = Prompts.open(str(path), CLASSES)
    if change in {"within a pixel", "unknown"}:
        assert len(prompts_of(prompts, series[0])) == 1
        return
    with pytest.raises(ImageError, match=r"lies \d+\.\d mm from it in the patient"):
        prompts_of(prompts, series[0])


def test_what_is_no_usable_segmentation_is_refused(series, tmp_path):
    with pytest.raises(InputError, match="are no DICOM Segmentation, but CT"):
        Prompts.open(str(series[0]), CLASSES)
    (tmp_path / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"x" * 50)
    with pytest.raises(InputError, match=r"bad\.dcm"):
        Prompts.open(str(tmp_path / "bad.dcm"), CLASSES)
    file = write_seg(tmp_path / "s.dcm", series, planes(), labels=("liver", "kidney"))
    with pytest.raises(InputError, match="the segment 'kidney', but the task has liver, spleen"):
        Prompts.open(str(file), CLASSES)
    ds = pydicom.dcmread(write_seg(tmp_path / "s.dcm", series, planes()))
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    ds.save_as(tmp_path / "s.dcm")
    with pytest.raises(InputError, match=r"frame 1 of prompts .* does not name the one image"):
        Prompts.open(str(tmp_path / "s.dcm"), CLASSES)
    ds = pydicom.dcmread(write_seg(tmp_path / "s.dcm", series, planes()))
    ds.Rows = ds.Columns = 65535
    ds.save_as(tmp_path / "s.dcm")
    with pytest.raises(InputError, match=r"65535 x 65535 pixels, above image\.max_pixels"):
        Prompts.open(str(tmp_path / "s.dcm"), CLASSES)
    ds = pydicom.dcmread(write_seg(tmp_path / "s.dcm", series, planes()))
    ds.PixelData = ds.PixelData[:20]
    ds.save_as(tmp_path / "s.dcm")
    with pytest.raises(InputError, match="no DICOM Segmentation that can be read"):
        Prompts.open(str(tmp_path / "s.dcm"), CLASSES)


def test_a_segment_that_the_file_lacks_or_has_twice_is_refused(series, tmp_path):
    def refused(problem, change, kind="BINARY"):
        ds = pydicom.dcmread(write_seg(tmp_path / "s.dcm", series, planes(), kind=kind))
        change(ds)
        ds.save_as(tmp_path / "s.dcm")
        with pytest.raises(InputError, match=problem):
            Prompts.open(str(tmp_path / "s.dcm"), CLASSES)

    def without_spleen(ds):
        del ds.SegmentSequence[-1]

    def renumbered(ds):
        ds.SegmentSequence[1].SegmentNumber = ds.SegmentSequence[0].SegmentNumber

    def of_frame_0(ds):
        (source,) = (
            ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
        )
        source.ReferencedFrameNumber = 0

    lacks = r"frame \d of prompts .* has pixels of segment 2, which the file lacks"
    refused(lacks, without_spleen)
    refused(lacks, without_spleen, "LABELMAP")
    refused("two segments with the number 1", renumbered)
    refused(r"frame 1 of prompts .* names frame 0 of its image", of_frame_0)


def test_a_folder_of_masks_is_no_folder_of_segmentations(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), LIVER)
    assert not Prompts.open(str(tmp_path), CLASSES).segments
