"""The student is compared with its teacher on images that it never saw."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from salip_ray.errors import ConfigError, InputError
from salip_ray.evaluation import Evaluation, Score, as_json
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.sources.references import References
from salip_ray.student.network import Student
from salip_ray.student.scoring import comparison, require_unseen, score_student
from salip_ray.student.unet import make_net
from tests.unit.datasets.conftest import CONFIDENCES, draw, write_output


class Painter(Student):
    """Knows the pictures: the lung is bright, the heart less so."""

    def __call__(self, image):
        return {"lung": image[..., 0] > 180, "heart": abs(image[..., 0].astype(int) - 120) < 20}


@pytest.fixture
def tested(tmp_path):
    output = write_output(tmp_path)
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(len(CONFIDENCES)):
        _, left, right = draw(index)
        cv2.imwrite(str(masks / f"view{index}.png"), (left + 2 * right).astype(np.uint8))
    return LabelOutput.open(str(output)), References.open(str(masks))


def painter(**class_ids: int) -> Student:
    return Painter(torch.nn.Identity(), class_ids or {"lung": 1, "heart": 2}, 32, 2)


def test_student_and_teacher_are_scored_on_the_same_images(tested):
    evaluation = score_student(painter(), *tested, surfaces=False)
    data = json.loads(as_json(evaluation))
    assert set(data["classes"]["heart"]) == {"cascade", "student"}
    assert data["classes"]["lung"]["student"]["n"] == len(CONFIDENCES)
    assert data["classes"]["lung"]["student"]["dice"] == 1.0
    # The teacher left the first image's heart out.
    assert data["classes"]["heart"]["cascade"]["dice"] == pytest.approx(5 / 6)
    assert {item["reason"] for item in data["unscored"]} == {"without_reference", "error"}
    heart = json.loads(json.dumps(comparison(evaluation)))["heart"]
    assert heart["difference"] == pytest.approx(1 / 6)
    assert (heart["n"], heart["better_on"]) == (6, 1)


def test_training_images_are_refused_as_tests(tested):
    labels, references = tested
    trained = next(row["image_id"] for row in labels.rows() if row["uri"].endswith("view3.png"))
    with pytest.raises(InputError, match=r"the student learns from image .*view3\.png"):
        score_student(painter(), labels, references, trained_on={trained})


def test_an_image_that_shares_its_reference_is_not_scored_and_may_be_learnt_from(tested):
    labels, references = tested
    rows = labels.manifest().to_pylist()
    trained = next(row for row in rows if row["uri"].endswith("view3.png"))
    with pytest.raises(InputError, match="learns from image"):
        require_unseen(labels, references, {trained["image_id"]})
    twin = {**trained, "image_id": "twin", "uri": trained["uri"].replace("patient1", "patient9")}
    table = pa.Table.from_pylist([*rows, twin], MANIFEST_SCHEMA)
    pq.write_table(table, f"{labels.uri}/manifest.parquet")
    require_unseen(labels, references, {trained["image_id"]})


def test_a_student_of_other_classes_is_refused(tested):
    with pytest.raises(ConfigError, match=r"has the classes .* learnt \{'liver': 1\}"):
        score_student(painter(liver=1), *tested)


def test_images_without_dice_are_in_no_difference():
    def score(image: str, method: str, dice: float) -> Score:
        return Score(image, image, "lung", method, dice, dice)

    pairs = [("a", 0.9, 0.7), ("b", math.nan, 0.0), ("c", 0.6, 0.8)]
    scores = [
        score(image, method, dice)
        for image, *both in pairs
        for method, dice in zip(("student", "cascade"), both, strict=True)
    ]
    lung = comparison(Evaluation(tuple(scores)))["lung"]
    assert (lung["n"], lung["better_on"]) == (2, 1)
    assert lung["difference"] == pytest.approx(0.0)
    nothing = comparison(Evaluation(tuple(scores[2:4])))["lung"]
    assert (nothing["n"], nothing["difference"], nothing["interval"]) == (0, None, None)


def test_a_real_net_has_a_mask_for_every_class(tested):
    student = Student(make_net(2, 2).eval(), {"lung": 1, "heart": 2}, 32, 2)
    evaluation = score_student(student, *tested, surfaces=False)
    assert sum(score.method == "student" for score in evaluation.scores) == 2 * len(CONFIDENCES)
