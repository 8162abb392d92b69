"""The shipped tasks on images that do not show their organ."""

from __future__ import annotations

import pytest

from salip_ray import Cascade, load_config
from salip_ray.models.bundled.phantoms import TARGETS, make_phantom

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = {"lungs": "chest_xray", "brain": "brain_mri"}


@pytest.fixture(scope="module", params=KINDS)
def task(request):
    return request.param, Cascade(load_config(request.param), device="cpu")


def test_image_with_the_organ_is_labelled(task):
    name, cascade = task
    phantom = make_phantom(KINDS[name], 1, bank="tune")
    result = cascade(phantom.image)
    assert [outcome.outcome for outcome in result.outcomes] == ["labelled"]
    assert result.masks[0].confidence > 0.8
    assert phantom.mask(TARGETS[KINDS[name]]).any()


def test_image_of_the_same_kind_without_the_organ_is_left_empty_with_the_reason(task):
    name, cascade = task
    result = cascade(make_phantom(KINDS[name], 0, bank="tune", target=False).image)
    assert result.masks == ()
    assert [outcome.outcome for outcome in result.outcomes] == ["empty"]
    assert "is below task.min_confidence 0.5" in result.outcomes[0].reason


def test_user_can_switch_the_limit_off():
    config = load_config("lungs", overrides=["task.min_confidence=0"])
    result = Cascade(config, device="cpu")(
        make_phantom("chest_xray", 0, bank="tune", target=False).image
    )
    assert result.masks[0].confidence < 0.5


@pytest.mark.parametrize(("preset", "outcome"), [("bundled", "empty"), ("salip-2d", "labelled")])
def test_limit_applies_only_to_presets_whose_candidates_compete(preset, outcome):
    changes = {
        "sam": {"model": "bundled", "checkpoint": None},
        "clip": {"model": "bundled", "pretrained": None},
        "propose": {"crop_n_layers": 0, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.15},
        "task": {"min_confidence": 1.0},
    }
    config = load_config("lungs", preset=preset, overrides=changes)
    result = Cascade(config, device="cpu")(make_phantom("chest_xray", 1, bank="tune").image)
    assert [each.outcome for each in result.outcomes] == [outcome]
