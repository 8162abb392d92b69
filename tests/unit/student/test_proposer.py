"""A student labels the images of a job, as a proposer of labelled instances."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.loading import load_proposer
from salip_ray.config import load_config
from salip_ray.errors import ConfigError, ImageError, WeightsError
from salip_ray.models.identity import identify
from salip_ray.models.registry import needed
from salip_ray.output.masks import component_rles, decode_rle
from salip_ray.student.network import Student
from salip_ray.student.unet import make_net

SENTENCES = {"lung": ["a lung"], "heart": ["a heart"]}


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student(make_net(2, 4).eval(), {"lung": 3, "heart": 7}, 32, 4)


@pytest.fixture
def file(student, tmp_path):
    path = tmp_path / "student.safetensors"
    path.write_bytes(student.to_bytes())
    return path


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype(np.uint8)


def config_of(weights, *more, prompts=SENTENCES, **task):
    limits = {"min_area": 0, "max_area": 1, "min_confidence": 0}
    values = {
        "propose.model": "student",
        "propose.weights": weights,
        "refine.model": "none",
        "retrieve.max_overlap": 1,
        "image.long_side": 64,
    }
    given = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    task = {"name": "two", "prompts": prompts, **limits, **task}
    return load_config({"task": task}, overrides=[*given, *more])


def test_the_cascade_gives_the_masks_of_the_student(student, file, image):
    config = config_of({"student": str(file)})
    assert list(needed(config)) == ["propose"]
    assert list(identify(config)) == ["propose.student"]
    masks = {mask.label: mask.mask for mask in Cascade(config)(image).masks}
    expected = {label: mask for label, mask in student(image).items() if mask.any()}
    assert masks.keys() == expected.keys() != set()
    for label, mask in expected.items():
        np.testing.assert_array_equal(masks[label], mask)


def test_the_score_is_the_mean_probability_of_the_pixels(student, file, image):
    probabilities = student.logits(image).softmax(dim=0).numpy()
    for candidate in load_proposer(config_of({"student": str(file)}))(image).candidates:
        channel = np.unique(probabilities.argmax(axis=0)[candidate.mask])
        assert len(channel) == 1
        expected = probabilities[channel[0]][candidate.mask].mean()
        assert candidate.predicted_iou == pytest.approx(expected, abs=1e-5)


def test_a_class_of_several_objects_has_one_instance_per_component(student, file, image):
    whole = {label: mask for label, mask in student(image).items() if mask.any()}
    label = max(whole, key=lambda name: len(component_rles(whole[name])))
    parts = [decode_rle(rle) for rle in component_rles(whole[label])]
    assert len(parts) > 1
    config = config_of({"student": str(file)}, top_k={label: 100})
    candidates = load_proposer(config)(image).candidates
    assert len(candidates) == len(parts) + len(whole) - 1


def test_a_class_that_the_student_did_not_learn_is_refused(file):
    config = config_of({"student": str(file)}, prompts={**SENTENCES, "rib": ["a rib"]})
    with pytest.raises(ConfigError, match=r"did not learn rib: its classes are lung, heart"):
        Cascade(config)


def test_options_are_refused(file):
    with pytest.raises(ConfigError, match="has no options: remove size"):
        Cascade(config_of({"student": str(file)}, "propose.options.size=3"))


def test_weights_that_would_be_ignored_are_refused(file):
    with pytest.raises(ConfigError, match=r"uses no propose\.weights but student: remove other"):
        Cascade(config_of({"student": str(file), "other": str(file)}))


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"propose\.weights needs student"):
        Cascade(config_of({}))


def test_a_file_that_is_no_student_is_refused(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsError, match=r"other\.safetensors is not a trained student"):
        Cascade(config_of({"student": str(tmp_path / "other.safetensors")}))


def test_objects_whose_masks_do_not_fit_in_memory_are_refused(file, image):
    config = config_of({"student": str(file)}, "image.max_bytes=20000", top_k="all")
    problem = r"the student found \d+ objects in 48 x 64 pixels, .*above image\.max_bytes = 20,000"
    with pytest.raises(ImageError, match=problem):
        load_proposer(config)(image)
    single = config_of({"student": str(file)}, "image.max_bytes=20000")
    assert load_proposer(single)(image).candidates


def test_objects_too_small_for_the_image_are_empty_with_the_reason(file, image):
    outcomes = Cascade(config_of({"student": str(file)}))(image[:1, :1]).outcomes
    reasons = {outcome.reason for outcome in outcomes if outcome.outcome == "empty"}
    assert "the retrieved candidates have no pixel at the size of the image" in reasons
