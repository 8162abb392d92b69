"""A task is refused if the bundled CLIP was not taught its classes."""

from __future__ import annotations

import pytest

from salip_ray import Cascade
from salip_ray.config import load_config
from salip_ray.errors import ConfigError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.bundled.taught import taught_as
from salip_ray.models.task_check import require_taught_classes, untaught_classes
from tests.conftest import SMALL

LIVER = {
    "task": {
        "name": "liver",
        "prompts": {"liver": ["An abdominal CT showing the liver as a large grey organ."]},
    }
}


def test_untaught_organ_is_refused_with_both_ways_out():
    with pytest.raises(ConfigError) as caught:
        require_taught_classes(load_config(LIVER))
    message = str(caught.value)
    assert "were not taught the class 'liver'" in message
    assert "--preset paper-2d" in message
    assert "--set clip.allow_untaught=true" in message


@pytest.mark.parametrize(
    "override",
    [
        "clip.allow_untaught=true",
        "clip={model: ViT-B-32, pretrained: openai}",
        "run.modes=[unprompted]",
    ],
)
def test_forced_task_other_clip_and_unused_clip_pass(override):
    require_taught_classes(load_config(LIVER, overrides=[override]))


@pytest.mark.parametrize("name", ["lungs", "chest", "brain", "head", "fetal_head"])
@pytest.mark.parametrize("preset", ["bundled", "paper-bundled", "paper-2d"])
def test_shipped_tasks_pass(name, preset):
    require_taught_classes(load_config(name, preset=preset))


@pytest.mark.parametrize("name", ["clavicle", "spine", "ventricles", "midline"])
def test_structure_that_is_only_a_distractor_is_refused(name):
    config = load_config({"task": {"name": "t", "prompts": {name: [f"the {name}"]}}})
    with pytest.raises(ConfigError, match=f"not taught the class '{name}'"):
        require_taught_classes(config)


def test_only_the_untaught_classes_are_named():
    prompts = {"lungs": ["the lungs"], "spleen": ["the spleen"], "kidney": ["a kidney"]}
    config = load_config({"task": {"name": "t", "prompts": prompts}})
    assert untaught_classes(config) == ("spleen", "kidney")
    with pytest.raises(ConfigError, match="classes 'spleen', 'kidney'"):
        require_taught_classes(config)


@pytest.mark.parametrize(
    ("label", "sentences", "expected"),
    [
        ("lungs", ["two dark lungs"], {"lungs"}),
        ("Left_Lung", ["the left lung"], {"lungs"}),
        ("fetal-head", ["a bright ellipse"], {"fetal head"}),
        # The label is of another language, the sentences are about a taught class.
        ("Lunge", ["a chest X-ray showing the lungs"], {"lungs"}),
        # A taught label does not make sentences about something else known.
        ("lungs", ["the liver"], set()),
        ("liver", ["the liver below the lungs"], set()),
        ("organ", ["a large dark organ"], set()),
    ],
)
def test_taught_class_depends_on_label_and_sentences(label, sentences, expected):
    assert taught_as(label, sentences) == expected


def test_cascade_refuses_an_untaught_class_and_forced_gives_no_confidence():
    data = {"task": {**LIVER["task"], "max_area": 0.99}}
    small = [setting for setting in SMALL if not setting.startswith("pools")]
    with pytest.raises(ConfigError, match="'liver'"):
        Cascade(load_config(data, overrides=small))
    forced = load_config(data, overrides=[*small, "clip.allow_untaught=true"])
    phantom = make_phantom("chest_xray", 0, bank="tune", size=64)
    (mask,) = Cascade(forced)(phantom.image).masks
    assert mask.label == "liver"
    assert mask.confidence is None
    taught = load_config("lungs", overrides=small)
    (mask,) = Cascade(taught)(phantom.image).masks
    assert 0 <= mask.confidence <= 1
