"""What is shown of a listing: its folders, and a warning about files that look like masks."""

from __future__ import annotations

import pytest

from salip_ray.config import PrivacyConfig
from salip_ray.sources.listing import list_images
from salip_ray.sources.overview import describe_listing


def lines(folder, *names, privacy=None):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    return describe_listing(list_images(folder), privacy or PrivacyConfig())


def test_masks_next_to_images_are_counted_and_a_way_to_leave_them_out_is_shown(tmp_path):
    assert lines(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png") == [
        "4 files in 2 folders: images/ 2, masks/ 2",
        "warning: 2 files look like masks and will be labelled as images; to leave out: "
        "--exclude 'masks'",
    ]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("a_mask.png", "*_mask.*"),
        ("x/SegmentationClass/a.png", None),
        ("x/labelsTr/a.nii.gz", "labelsTr"),
        ("x/ground_truth/a.png", "ground_truth"),
        ("x/manual masks/deep/a.png", "manual masks"),
        ("x/a-seg.nii.gz", "*-seg.*"),
        ("x/unmasked.png", None),
        ("labeling/x.png", None),
    ],
)
def test_what_looks_like_a_mask(tmp_path, name, pattern):
    warning = [line for line in lines(tmp_path, "a.png", name) if line.startswith("warning")]
    if pattern is None:
        assert warning == []
    else:
        assert warning[0].endswith(f"--exclude '{pattern}'")
        assert warning[0].startswith("warning: 1 file looks like masks")


def test_a_folder_of_masks_only_was_meant_and_one_folder_needs_no_line(tmp_path):
    assert lines(tmp_path / "masks", "a.png", "b_mask.png") != []
    assert lines(tmp_path / "masks2", "a_mask.png", "b_mask.png") == []


def test_folders_of_hidden_files_are_counted_only(tmp_path):
    assert lines(tmp_path, "doe_jane/1.dcm", "x/2.dcm") == ["2 files in 2 folders"]
    shown = lines(tmp_path, privacy=PrivacyConfig(hash_uris=False))
    assert "doe_jane/ 1" in shown[0]


def test_many_folders_are_cut_short(tmp_path):
    (line,) = lines(tmp_path, *(f"{n}/a.png" for n in range(8)))
    assert line.startswith("8 files in 8 folders: ")
    assert line.endswith(" and 3 more")
