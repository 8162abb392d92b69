"""Boxes and points that are given, in the cascade."""

from __future__ import annotations

import numpy as np
import pytest
from segment_anything import SamPredictor

from salip_ray.cascade.compose import compose
from salip_ray.cascade.given import given_candidates
from salip_ray.cascade.prompts import Prompt
from salip_ray.cascade.refiner import SamRefiner, refine
from salip_ray.errors import ConfigError
from salip_ray.schema import Points
from tests.unit.cascade.conftest import TASK


def test_each_given_box_is_an_instance(sam, configure, picture):
    config = configure(task=TASK, propose={"model": "prompts"})
    refiner, image = SamRefiner(sam, config), picture(90, 128)
    boxes = [("lung", (5, 5, 40, 60)), ("heart", (50, 30, 70, 60)), ("lung", (80, 5, 120, 60))]
    boxes.append(("lung", (6, 5, 40, 60)))  # more than top_k, and like the first
    sizes = {"working_size": (90, 128), "original_size": (90, 128)}
    candidates, selections = given_candidates(boxes, config.task.classes, **sizes)
    embedding = refiner.encode(image)
    given = {"candidates": candidates, "n_proposed": 4, "selections": selections}
    lung, heart = compose(config, refiner, embedding=embedding, **given, **sizes).masks
    assert [(i.candidate_id, i.confidence) for i in lung.instances] == [
        *((0, None), (2, None), (3, None)),
    ]
    wanted = refiner(embedding, boxes=[boxes[n][1] for n in (0, 2, 3)], **sizes).masks
    np.testing.assert_array_equal([i.mask for i in lung.instances], wanted)
    assert heart.instances == ()


def test_given_points_have_the_masks_of_the_official_predictor(sam, configure, picture):
    config = configure(task=TASK, propose={"model": "prompts"})
    refiner, image = SamRefiner(sam, config), picture(90, 128)
    clicks = [
        ("lung", Points(((20, 30),))),
        ("heart", Points(((60, 45), (64, 50)), ((5, 5),))),
    ]
    sizes = {"working_size": (90, 128), "original_size": (90, 128)}
    candidates, selections = given_candidates(clicks, config.task.classes, **sizes)
    given = {"candidates": candidates, "n_proposed": 2, "selections": selections}
    masks = compose(config, refiner, embedding=refiner.encode(image), **given, **sizes).masks
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    three, ious, _ = predictor.predict(np.array([[20, 30]]), np.array([1]), multimask_output=True)
    one, iou, _ = predictor.predict(
        np.array([[60, 45], [64, 50], [5, 5]]), np.array([1, 1, 0]), multimask_output=False
    )
    for mask, expected, score in zip(
        masks, (three[ious.argmax()], one[0]), (ious.max(), iou[0]), strict=True
    ):
        np.testing.assert_array_equal(mask.mask, expected)
        assert mask.sam.predicted_iou == pytest.approx(float(score), abs=1e-5)
        assert (mask.prompt_boxes, mask.confidence) == ((), None)


def test_given_points_move_with_the_image(sam, configure, picture):
    points = Points(((0, 0), (255, 179)), ((127.5, 89.5),))
    (candidate,), _ = given_candidates(
        [("lung", points)],
        configure(task=TASK).task.classes,
        working_size=(90, 128),
        original_size=(180, 256),
    )
    assert candidate.points == Points(((0.0, 0.0), (127.0, 89.0)), ((63.5, 44.5),))
    assert candidate.box == (0.0, 0.0, 127.0, 89.0)
    assert np.argwhere(candidate.mask).tolist() == [[0, 0], [89, 127]]


def test_points_need_sam(configure):
    class Boxes:
        name = "mine"

    sizes = {"working_size": (9, 9), "original_size": (9, 9)}
    with pytest.raises(ConfigError, match=r"points, .* need SAM as the refiner, found mine"):
        refine(Boxes(), None, [Prompt(None, ((1, 1),))], configure().refine, **sizes)
