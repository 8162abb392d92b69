"""From manifest rows to pixels: a volume is fetched and opened once for all its slices."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.config import load_config
from salip_ray.output.manifest import make_manifest
from salip_ray.pipeline.decoding import decode, files
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.rows import columns
from salip_ray.sources.expand import expand
from salip_ray.sources.listing import list_images
from salip_ray.sources.references import References
from tests.dicom_series import write_slice


@pytest.fixture
def folder(tmp_path):
    grey = np.arange(72, dtype=np.uint8).reshape(8, 9)
    Pil.fromarray(grey).save(tmp_path / "a.png")
    values = np.random.default_rng(0).integers(0, 900, (8, 9, 4)).astype(np.int16)
    values[:, :, 3] = 0
    for name in ("b.nii.gz", "c.nii"):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 3, 4, 1])), tmp_path / name)
    Pil.fromarray(grey).save(tmp_path / "d.png")
    return tmp_path


def decoded(folder, *overrides, references=None):
    config = load_config("lungs", overrides=["image.long_side=16", *overrides])
    plan = make_manifest(expand(list_images(folder), config)[0], 100)
    tables = decode.fetch_and_decode(plan.table, config, references, StageReporter())
    return [row for table in tables for row in table.to_pylist()]


def test_rows_come_in_order_and_a_file_is_fetched_once(folder, monkeypatch):
    asked = []
    fetch = files.fetch_all

    def counted(addresses, options, **limits):
        asked.extend(addresses)
        return fetch(addresses, options, **limits)

    monkeypatch.setattr(files, "fetch_all", counted)
    rows = decoded(folder)
    assert [row["_seq"] for row in rows] == list(range(10))
    assert asked == [str(folder / name) for name in ("a.png", "b.nii.gz", "c.nii", "d.png")]
    statuses = [row["status"] for row in rows]
    assert statuses == ["ok", *["ok", "ok", "ok", "empty"] * 2, "ok"]
    assert (rows[1]["height"], rows[1]["width"], rows[1]["spacing"]) == (9, 8, [3.0, 2.0])
    assert rows[4]["_working"] is None
    assert rows[0]["volume"] is None
    assert [row["slice"] for row in rows[1:5]] == [0, 1, 2, 3]
    assert rows[1]["_working"] == rows[5]["_working"] != rows[2]["_working"]


def test_blank_slices_are_labelled_without_skip_blank(folder):
    assert {row["status"] for row in decoded(folder, "image.skip_blank=false")} == {"ok"}


def test_each_slice_of_a_bad_volume_says_why(folder):
    data = (folder / "c.nii").read_bytes()
    (folder / "c.nii").write_bytes(data[:-10])
    rows = decoded(folder)
    bad = [row for row in rows if row["status"] == "error"]
    assert [row["slice"] for row in bad] == [0, 1, 2, 3]
    assert {row["error"]["stage"] for row in bad} == {"decode"}
    assert "truncated" in bad[0]["error"]["message"]
    assert len(rows) == 10


def test_reference_volumes_are_cut_alike(folder, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    values = np.zeros((8, 9, 4), np.uint8)
    values[2, 3, 1] = 1
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 3, 4, 1])), masks / "b.nii.gz")
    rows = decoded(folder, references=References.open(str(masks)))
    areas = [columns.decode_rle(row["_references"][0]["rle"]).sum() for row in rows[1:4]]
    assert areas == [0, 1, 0]
    assert rows[0]["_references"] is None


def test_masks_of_single_slices_are_used(folder, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    for index in (0, 2):
        mask = np.zeros((9, 8), np.uint8)
        mask[:, : index + 1] = 1
        Pil.fromarray(mask).save(masks / f"b-{index:03d}.png")
    rows = decoded(folder, references=References.open(str(masks)))
    references = [row["_references"] for row in rows[1:4]]
    assert references[1] is None
    areas = [columns.decode_rle(references[n][0]["rle"]).sum() for n in (0, 2)]
    assert areas == [9, 27]


def test_a_mask_on_another_grid_is_an_error_row(folder, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 4), np.uint8), np.eye(4)), masks / "b.nii")
    rows = decoded(folder, references=References.open(str(masks)))
    assert {row["status"] for row in rows[1:4]} == {"error"}
    assert rows[1]["error"]["stage"] == "reference"
    assert "it is not on the image's grid" in rows[1]["error"]["message"]
    assert rows[5]["status"] == "ok"


def test_errors_of_hidden_files_name_them_by_their_id(tmp_path):
    folder = tmp_path / "Doe Jane"
    for number in range(2):
        write_slice(folder / f"{number}.dcm", np.zeros((8, 8)), 3.0 * number, number=number)
    config = load_config("lungs")
    plan = make_manifest(expand(list_images(folder), config)[0], 100)
    (folder / "1.dcm").unlink()
    (folder / "0.dcm").write_bytes(b"")
    tables = decode.fetch_and_decode(plan.table, config, None, StageReporter())
    rows = [row for table in tables for row in table.to_pylist()]
    assert rows[0]["error"]["message"] == (
        f"id:{rows[0]['image_id']} was changed after it was listed: label it into a new output"
    )
    assert rows[1]["error"]["message"] == f"id:{rows[1]['image_id']} does not exist"
    assert rows[1]["uri"] == f"id:{rows[1]['image_id']}"
    assert "Doe" not in str(rows)
