"""MobileSAM: TinyViT of timm with SAM's decoder, from a file with the official names."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from salip_ray.cascade.cascade import Cascade
from salip_ray.config import load_config
from salip_ray.errors import WeightsError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.sam import load
from salip_ray.models.sam.mobile_sam import build_mobile_sam, to_timm

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"img_size": 128, "widths": (32, 32, 64, 64), "depths": (1, 1, 1, 1)}


def random_sam(**sizes):
    """A small MobileSAM with random weights and statistics."""
    torch.manual_seed(0)
    sam = build_mobile_sam(**(sizes or TINY)).eval().requires_grad_(False)
    for name, tensor in sam.named_parameters():
        if tensor.ndim > 1 and "norm" not in name:
            tensor.copy_(torch.randn_like(tensor) * tensor[0].numel() ** -0.5)
    for name, tensor in sam.named_buffers():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return sam


def official_state(sam):
    """Return its state dict as the official file has it, with a classifier."""
    state = {}
    for name, tensor in sam.state_dict().items():
        if name.startswith("image_encoder.") and "neck" not in name:
            name = re.sub(
                r"stages\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name
            )
            name = name.replace("stages.", "layers.").replace(".conv.", ".c.")
            name = name.replace("patch_embed.conv1", "patch_embed.seq.0")
            name = name.replace("patch_embed.conv2", "patch_embed.seq.2")
        state[name] = tensor
    return {**state, "image_encoder.head.weight": torch.zeros(10, 64)}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "build_mobile_sam", lambda: build_mobile_sam(**TINY))
    torch.save(official_state(random_sam()), tmp_path / "mobile_sam.pt")
    return tmp_path / "mobile_sam.pt"


def config_of(checkpoint, *more, model="vit_t"):
    """Return a small configuration with a SAM, and without limits: its weights are random."""
    sam = json.dumps({"model": model, "checkpoint": str(checkpoint)})
    limits = ("propose.pred_iou_thresh=0", "propose.stability_score_thresh=0")
    task = ("task.max_area=1", "task.min_area=0", "task.min_confidence=0")
    given = ("image.long_side=96", "propose.points_per_side=4", "propose.box_nms_thresh=1")
    return load_config("lungs", overrides=[f"sam={sam}", *limits, *task, *given, *more])


def test_the_names_of_the_official_file_are_those_of_the_network():
    sam = random_sam()
    state = to_timm(official_state(sam))
    assert state.keys() == sam.state_dict().keys()
    for name, tensor in sam.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_the_cascade_labels_with_it(checkpoint):
    image = make_phantom("chest_xray", 0, bank="tune", size=96).image
    exact = Cascade(config_of(checkpoint))(image)
    assert exact.candidates
    assert exact.masks
    fast = Cascade(config_of(checkpoint, "run.precision=fast"))(image)
    ious = [[c.predicted_iou for c in result.candidates][:5] for result in (exact, fast)]
    np.testing.assert_allclose(*ious, atol=0.2)


def test_the_embedding_has_the_grid_of_sam():
    sam = random_sam()
    pixels = torch.rand(2, 3, 128, 128)
    embeddings = sam.image_encoder(pixels)
    assert embeddings.shape == (2, 256, 8, 8)
    assert not torch.allclose(embeddings[0], embeddings[1])


def test_another_checkpoint_is_refused(checkpoint):
    state = torch.load(checkpoint)
    del state["image_encoder.patch_embed.seq.0.c.weight"]
    torch.save(state, checkpoint)
    with pytest.raises(WeightsError, match=r"is not a checkpoint of vit_t: .*conv1\.conv\.weight"):
        Cascade(config_of(checkpoint))
