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
    assert "9 images of" in done.output
    assert "a fit needs 10" in done.output
    assert not (labels / CALIBRATION).exists()


def test_an_output_that_is_being_written_is_refused(labels, masks):
    from salip_ray.calibration.job import calibrate
    from salip_ray.sources.references import References

    opened, references = LabelOutput.open(str(labels)), References.open(str(masks))
    with held(opened.store), pytest.raises(LeaseError):
        calibrate(opened, references, str(masks))
    (masks / "00.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"00\.png"):
        calibrate(opened, references, str(masks))
