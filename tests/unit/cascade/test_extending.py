"""The models of docs/extending.md are complete and label a phantom."""

from __future__ import annotations

import re
import sys
import types

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torchvision.models import detection

from salip_ray.cascade.cascade import Cascade
from salip_ray.config import load_config
from salip_ray.evaluation.overlap import dice
from salip_ray.models.bundled.phantoms import make_phantom
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def task_of_page():
    """Return the task file of the page."""
    (block,) = (block for block in blocks("yaml") if "task:" in block)
    return block


@pytest.fixture
def mine(monkeypatch):
    """All Python blocks of the page as the module ``mine``."""
    module = types.ModuleType("mine")
    exec("\n".join(blocks("python")), module.__dict__)
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def test_the_three_models_of_the_page_label_a_phantom(mine):
    config = load_config(yaml.safe_load(task_of_page()), overrides={"image": {"long_side": 128}})
    phantom = make_phantom("chest_xray", 4, bank="tune", size=150)
    (mask,) = Cascade(config)(phantom.image).masks
    assert dice(mask.mask, phantom.mask("lungs")) > 0.5
    assert mask.confidence is None


def test_each_model_has_at_most_thirty_lines():
    for block in blocks("python"):
        assert len(block.splitlines()) <= 30


def test_the_detector_of_the_page_proposes_boxes_for_sam(mine, tmp_path):
    torch.manual_seed(0)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    build = {"num_classes": 2, "box_score_thresh": 0.0, "box_detections_per_img": 5}
    net = getattr(detection, name)(weights=None, weights_backbone=None, **build)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    propose = {
        "model": "mine:Detector",
        "options": {"name": name, "build": build, "least": 0.0},
        "weights": {"net": str(tmp_path / "net.safetensors")},
    }
    config = load_config("lungs", overrides={"image": {"long_side": 128}, "propose": propose})
    phantom = make_phantom("chest_xray", 1, bank="tune", size=150)
    cascade = Cascade(config)
    net.eval()
    pixels = torch.from_numpy(phantom.image.copy()).permute(2, 0, 1) / 255
    with torch.inference_mode():
        (expected,) = net([pixels])
    result = cascade.propose(phantom.image)
    assert result.n_proposed == len(expected["scores"]) == 5
    scores = [candidate.predicted_iou for candidate in result.candidates]
    assert set(scores) <= set(expected["scores"].tolist())
    assert cascade(phantom.image).outcomes
