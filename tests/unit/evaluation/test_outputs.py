"""Outputs of volumes are scored slice by slice, each against its own, and as whole volumes."""

from __future__ import annotations

import io
import json

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil
from rich.console import Console

from salip_ray.config import load_config
from salip_ray.errors import ImageError, InputError
from salip_ray.evaluation import as_json, volume_scores
from salip_ray.evaluation.outputs import evaluate_output, write_results
from salip_ray.output.masks import encode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.report.scores import Scores
from salip_ray.report.tables import image_table, volume_table
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.sources.locations import image_id
from salip_ray.sources.references import References
from tests.dicom_series import write_slice
from tests.handmade import write_labels

URI = "/in/brain.nii.gz"
# Voxels run to the left, and are cut along the third axis; a mask lies wherever its affine says.
LEFTWARD = np.diag([-2.0, 2.0, 3.0, 1.0])
RIGHTWARD = np.array([[2.0, 0, 0, -6], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])


@pytest.fixture
def truth():
    """[left, front, up] voxels of LEFTWARD; no slice is like another, nor its own mirror image."""
    values = np.zeros((4, 5, 3), np.uint8)
    values[0, 1:4, 0] = values[1:3, 0, 1] = values[0, 0, 2] = values[3, 1:, 2] = 1
    return values


def drawn(values, index):
    """Return a slice in the orientation of its label: front up, the patient's right on the left."""
    return values[:, ::-1, index].T > 0


@pytest.fixture
def output(write_output, truth):
    """Exact labels but for slice 1, of which half is missing, and slice 2, an error."""

    def row(index, mask):
        return {
            "image_id": image_id(URI, index),
            "uri": URI,
            "height": 5,
            "width": 4,
            "status": "ok",
            "masks": [{"method": "cascade", "label": "lungs", "rle": encode_rle(mask)}],
            "volume": image_id(URI),
            "slice": index,
            "spacing": [2.0, 2.0],
        }

    half = drawn(truth, 1)
    half[:, half.any(axis=0).argmax()] = False
    failed = {**row(2, half), "status": "error", "masks": None, "height": None, "width": None}
    out = write_output([row(0, drawn(truth, 0)), row(1, half)], [failed])
    manifest = pq.read_table(out / "manifest.parquet").to_pylist()
    for number, line in enumerate(manifest):
        line |= {"index": number, "volume": image_id(URI), "slice": number}
    pq.write_table(pa.Table.from_pylist(manifest, MANIFEST_SCHEMA), out / "manifest.parquet")
    return LabelOutput.open(str(out))


def volume_beside(folder, truth):
    nibabel.save(nibabel.Nifti1Image(truth, LEFTWARD), folder / "brain.nii")


def mirrored_volume(folder, truth):
    nibabel.save(nibabel.Nifti1Image(truth[::-1], RIGHTWARD), folder / "brain.nii.gz")


def a_file_each(folder, truth):
    (folder / "brain").mkdir()
    for index in range(3):
        Pil.fromarray(drawn(truth, index).astype(np.uint8)).save(folder / f"brain/{index:03d}.png")


@pytest.mark.parametrize("save", [volume_beside, mirrored_volume, a_file_each])
def test_each_slice_is_scored_against_its_own(output, truth, tmp_path, save):
    masks = tmp_path / "masks"
    masks.mkdir()
    save(masks, truth)
    evaluation = evaluate_output(output, References.open(str(masks)))
    by_slice = {score.slice: score.dice for score in evaluation.scores if score.method == "cascade"}
    assert by_slice == {0: 1.0, 1: pytest.approx(2 / 3)}
    (volume,) = (score for score in volume_scores(evaluation) if score.method == "cascade")
    assert (volume.slices, volume.unscored, volume.uri) == (2, 1, URI)
    assert volume.dice == pytest.approx(2 * 4 / (4 + 5))  # no mean of slices
    _, summary = write_results(
        evaluation, tmp_path / "scores" / "e.json", output, References.open(str(masks))
    )
    data = json.loads((tmp_path / "scores" / "e.json").read_text())
    assert max(item["dice"] for item in data["volumes"]) == pytest.approx(8 / 9)
    case = json.loads(summary.read_text())["metric_per_case"][1]
    assert case["reference_file"].startswith(str(masks / "brain"))


def test_surfaces_of_a_whole_volume_are_in_millimetres(write_output, truth, tmp_path):
    def row(index):
        rle = encode_rle(drawn(np.roll(truth, 1, axis=2), index))
        cell = {"method": "cascade", "label": "lungs", "rle": rle}
        return {
            "image_id": image_id(URI, index),
            "uri": URI,
            "height": 5,
            "width": 4,
            "status": "ok",
            "masks": [cell],
            "volume": image_id(URI),
            "slice": index,
            "spacing": [2.0, 2.0],
        }

    out = write_output([row(0), row(1), row(2)])
    manifest = pq.read_table(out / "manifest.parquet").to_pylist()
    for number, line in enumerate(manifest):
        line |= {"index": number, "volume": image_id(URI), "slice": number}
    pq.write_table(pa.Table.from_pylist(manifest, MANIFEST_SCHEMA), out / "manifest.parquet")
    volume_beside(tmp_path, truth)
    labels, references = LabelOutput.open(str(out)), References.open(str(tmp_path))
    evaluation = evaluate_output(labels, references)
    (volume,) = (score for score in volume_scores(evaluation) if score.method == "cascade")
    assert volume.hd95_mm > 3.0  # a slice apart, and pixels of 2 mm
    assert 0 < volume.nsd_mm < 1
    assert f'"hd95_mm": {volume.hd95_mm}' in as_json(evaluation)
    console = Console(width=120, file=io.StringIO())
    console.print(volume_table(evaluation))
    assert f"{volume.hd95_mm:.3f}" in console.file.getvalue()
    fast = evaluate_output(labels, references, surfaces=False)
    assert np.isnan([score.hd95_mm for score in volume_scores(fast)]).all()


def test_a_report_has_the_means_of_volumes(output, truth, tmp_path):
    volume_beside(tmp_path, truth)
    evaluation = evaluate_output(output, References.open(str(tmp_path)), surfaces=False)
    scores = Scores.of(evaluation)
    assert scores.means["lungs"]["cascade"]["dice_3d"] == pytest.approx(8 / 9)
    assert scores.means["lungs"]["unprompted"]["dice_3d"] == 0.0
    assert scores.figures == ("dice", "dice_3d", "iou")


def test_a_mask_of_other_slices_is_refused(output, truth, tmp_path):
    nibabel.save(nibabel.Nifti1Image(truth[:, :, :2], LEFTWARD), tmp_path / "brain.nii")
    with pytest.raises(ImageError, match="has 2 axial slices, its image 3"):
        evaluate_output(output, References.open(str(tmp_path)))


def test_tables_tell_slices_apart(output, truth, tmp_path):
    volume_beside(tmp_path, truth)
    evaluation = evaluate_output(output, References.open(str(tmp_path)), surfaces=False)
    console = Console(width=120, file=io.StringIO())
    console.print(image_table(evaluation), volume_table(evaluation))
    text = console.file.getvalue()
    assert "brain.nii.gz [0]" in text
    assert "brain.nii.gz [1]" in text
    assert "2 of 3" in text
    assert "0.889" in text


@pytest.mark.parametrize("mask", ["Doe_Jane.png", "Doe_Jane.nii"])
def test_unusable_mask_of_a_hidden_image_stays_hidden(tmp_path, mask):
    write_slice(tmp_path / "in" / "Doe_Jane.dcm", np.zeros((6, 9)), 0.0)
    drawn = {"lungs": np.ones((6, 9), np.bool_)}
    labels = write_labels(
        tmp_path / "in", tmp_path / "out", load_config("lungs"), lambda row: drawn
    )
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / mask).write_bytes(b"no mask")
    with pytest.raises(InputError) as caught:
        evaluate_output(labels, References.open(str(tmp_path / "masks")))
    assert "Doe" not in str(caught.value)
    assert next(labels.rows())["uri"] in str(caught.value)
