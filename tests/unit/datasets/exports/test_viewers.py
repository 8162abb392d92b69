"""Names and colours of classes, as viewers of volumes read them."""

from __future__ import annotations

import shlex

import numpy as np
import pydicom
import pytest

from salip_ray.config import load_config
from salip_ray.datasets.exports.nifti import export_nifti
from salip_ray.datasets.exports.viewers import colour_of, itksnap_labels, slicer_colours
from tests.dicom_series import write_slice
from tests.handmade import write_labels

NAMES = {1: "left lung", 2: 'a "heart"\n', 255: "pixels to ignore"}


def test_itksnap_reads_a_colour_and_a_name_per_value():
    lines = [line for line in itksnap_labels(NAMES).splitlines() if not line.startswith("#")]
    rows = [shlex.split(line) for line in lines]
    assert [int(row[0]) for row in rows] == [0, 1, 2, 255]
    assert [row[-1] for row in rows] == ["Clear Label", "left lung", "a _heart__", NAMES[255]]
    for row in rows[1:]:
        assert tuple(map(int, row[1:4])) == colour_of(int(row[0]))
        assert len(row) == 8


def test_slicer_reads_a_name_without_spaces_and_a_colour_per_value():
    lines = [line for line in slicer_colours(NAMES).splitlines() if not line.startswith("#")]
    rows = [line.split() for line in lines]
    assert [(int(row[0]), len(row)) for row in rows] == [(0, 6), (1, 6), (2, 6), (255, 6)]
    assert rows[1] == ["1", "left_lung", *map(str, colour_of(1)), "255"]


@pytest.fixture
def series(tmp_path):
    mask = np.zeros((6, 9), np.bool_)
    mask[1:4, 2:7] = True
    for number in range(3):
        write_slice(tmp_path / f"in/{number}.dcm", np.zeros((6, 9)), 3.0 * number, number=number)
    config = load_config("lungs")
    return write_labels(tmp_path / "in", tmp_path / "out", config, lambda row: {"lungs": mask})


def test_label_volumes_come_with_both_files(series, tmp_path):
    export_nifti(series, str(tmp_path / "nifti"))
    assert '1 230 60 60 1 1 1 "lungs"' in (tmp_path / "nifti/labels.itksnap.txt").read_text()
    assert "1 lungs 230 60 60 255" in (tmp_path / "nifti/labels.ctbl").read_text()


def test_segments_of_dicom_have_the_colour_of_their_class(series, tmp_path):
    pytest.importorskip("highdicom")
    from highdicom.color import CIELabColor

    from salip_ray.datasets.exports.dicom_seg import export_dicom_seg

    export_dicom_seg(series, str(tmp_path / "seg"))
    (file,) = (tmp_path / "seg").glob("*.dcm")
    (segment,) = pydicom.dcmread(file).SegmentSequence
    assert segment.SegmentLabel == "lungs"
    colour = CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
    np.testing.assert_allclose(colour, colour_of(1), atol=2)
