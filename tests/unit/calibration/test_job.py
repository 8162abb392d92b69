"""Calibrate an output on references: recorded, refused if there are too few, never scored again."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.errors import InputError, LeaseError
from salip_ray.output.layout import CALIBRATION
from salip_ray.output.lease import held
from salip_ray.output.masks import encode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify import verify
from tests.conftest import tree
from tests.unit.consensus.runs import block, write_run

N = 24


@pytest.fixture
def labels(tmp_path):
    """Labels of other quality each, with a confidence of 0.5 to 0.9 in the order of their Dice."""
    images = {f"{n:02d}.png": {"lungs": block((0, 5), (0, 3 + n % 6))} for n in range(N)}
    confidences = {f"{n:02d}.png": 0.5 + 0.08 * (n % 6) for n in range(N)}
    return write_run(tmp_path / "labels", images, per_shard=7, confidences=confidences)


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for n in range(N):
        cv2.imwrite(str(folder / f"{n:02d}.png"), block((0, 5)).astype(np.uint8))
    return folder


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})


def test_a_fit_is_stored_with_its_images_and_quality(labels, masks):
    before = tree(labels)
    done = run("calibrate", labels, masks)
    assert done.exit_code == 0, done.output
    assert "fitted on 24 images, which no evaluation scores" in done.output
    content = json.loads((labels / CALIBRATION).read_text())
    ids = {row["image_id"] for row in LabelOutput.open(str(labels)).rows()}
    assert set(content["images"]) == ids
    assert content["references"] == str(masks)
    quality = content["classes"]["lungs"]["quality"]
    assert (quality["labels"], quality["images"]) == (24, 24)
    assert quality["after"]["rho"][0] > 0.9
    assert quality["after"]["error"][2] < quality["before"]["error"][1]
    assert tree(labels) == before
    assert verify(str(labels)).problems == ()


def test_images_that_were_used_are_never_scored(labels, masks, tmp_path):
    assert run("calibrate", labels, masks, "--images", 15).exit_code == 0
    used = set(json.loads((labels / CALIBRATION).read_text())["images"])
    done = run("evaluate", labels, masks, "--json", tmp_path / "scores.json", "--no-surfaces")
    assert done.exit_code == 0, done.output
    assert "15 images in no mean: used to fit the confidences (calibration.json)" in done.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["calibrated_on"] == 15
    assert len(scores["images"]) == N - 15
    assert not used & {image["image_id"] for image in scores["images"]}


def test_a_second_calibration_starts_from_what_is_stored(labels, masks):
    assert run("calibrate", labels, masks).exit_code == 0
    first = (labels / CALIBRATION).read_bytes()
    assert run("calibrate", labels, masks).exit_code == 0
    assert (labels / CALIBRATION).read_bytes() == first


def test_too_few_images_are_refused_and_nothing_is_written(labels, masks):
    for mask in sorted(masks.iterdir())[9:]:
        mask.unlink()
    done = run("calibrate", labels, masks)
    assert done.exit_code == 2
    assert "lungs: 9 images with a label and a reference, 10 are needed" in done.output
    assert not (labels / CALIBRATION).exists()


def test_references_of_another_organ_are_refused_with_the_reason(labels, masks):
    for mask in masks.iterdir():
        cv2.imwrite(str(mask), block((5, 6)).astype(np.uint8))
    done = run("calibrate", labels, masks)
    assert done.exit_code == 2
    assert "lungs: all its labels have the Dice 0.000" in done.output
    assert not (labels / CALIBRATION).exists()


def test_a_coco_file_is_a_reference(labels, masks, tmp_path):
    whole = encode_rle(block((0, 5)))
    names = [f"{n:02d}.png" for n in range(N)]
    content = {
        "categories": [{"id": 1, "name": "lungs"}],
        "images": [
            {"id": n, "file_name": name, "height": 6, "width": 8} for n, name in enumerate(names)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": whole} for n in range(N)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert run("calibrate", labels, masks).exit_code == 0
    expected = json.loads((labels / CALIBRATION).read_text())["classes"]
    done = run("calibrate", labels, tmp_path / "coco.json")
    assert done.exit_code == 0, done.output
    assert json.loads((labels / CALIBRATION).read_text())["classes"] == expected


def test_a_volume_counts_as_one_image_and_is_never_divided(tmp_path):
    images = {f"v{n % 12:02d}-{n}.png": {"lungs": block((0, 5), (0, 3 + n % 6))} for n in range(60)}
    confidences = {name: 0.5 + 0.08 * (n % 6) for n, name in enumerate(images)}
    output = write_run(
        tmp_path / "labels",
        images,
        confidences=confidences,
        volume_of=lambda name: name.split("-")[0],
    )
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in images:
        cv2.imwrite(str(folder / name), block((0, 5)).astype(np.uint8))
    done = run("calibrate", output, folder, "--images", 10)
    assert done.exit_code == 0, done.output
    used = set(json.loads((output / CALIBRATION).read_text())["images"])
    rows = list(LabelOutput.open(str(output)).rows())
    volumes = {row["volume"] for row in rows if row["image_id"] in used}
    assert len(volumes) == 10
    assert used == {row["image_id"] for row in rows if row["volume"] in volumes}


def test_an_output_that_is_being_written_is_refused(labels, masks):
    from salip_ray.calibration.job import calibrate
    from salip_ray.sources.references import References

    opened, references = LabelOutput.open(str(labels)), References.open(str(masks))
    with held(opened.store), pytest.raises(LeaseError):
        calibrate(opened, references, str(masks))
    (masks / "00.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"00\.png"):
        calibrate(opened, references, str(masks))
