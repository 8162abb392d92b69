"""SAM-Med2D: adapters in the encoder of SAM, from a training checkpoint as its authors save it."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pytest
import torch

from salip_ray.cascade.cascade import Cascade
from salip_ray.errors import WeightsError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.sam import load
from salip_ray.models.sam.load import quicken
from salip_ray.models.sam.sam_med2d import build_sam_med2d
from tests.unit.models import test_mobile_sam

pytestmark = pytest.mark.usefixtures("one_thread")
config_of = partial(test_mobile_sam.config_of, model="sam_med2d")
TINY = {"width": 32, "depth": 2, "heads": 2, "every": 2}

#: Computed by the code of OpenGVLab/SAM-Med2D, commit bfd2b93, with the weights of `filled` and the
#: image and box of `test_the_numbers_of_the_official_code`: every 64th channel of every fifth cell
#: of the embedding (12 of them), predicted IoUs, every 21st logit (12), pixels of each mask.
EMBEDDING = [
    *(-0.68649381, -0.84975576, -1.12997842, -1.13139594, 0.38260639, -0.14768791),
    *(0.23045844, 0.38461292, 0.51480460, 0.19691694, 0.59278273, 0.75071847),
]
IOUS = [1.17593265, 2.21934533, 0.29202387]
LOGITS = [
    *(-2.39943790, -5.90626526, -2.03026056, -6.29580259, -2.31556082, -9.99048805),
    *(-3.01589394, -9.50548458, -3.94393492, -7.99562168, -4.23184395, -7.08263063),
]
PIXELS = [256, 4096, 0]


def filled(sam):
    """Fill the weights of a SAM with numbers that depend on their names alone."""
    for name, tensor in [*sam.named_parameters(), *sam.named_buffers()]:
        if name in {"pixel_mean", "pixel_std"}:
            continue
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        values = np.random.default_rng(seed).standard_normal(tensor.shape, np.float32)
        if tensor.ndim > 1 and "positional" not in name:
            values *= np.float32(tensor[0].numel() ** -0.5)
        if "norm" in name and name.endswith("weight"):
            values = 1 + values / 10
        tensor.requires_grad_(False).copy_(torch.from_numpy(values))
    return sam.eval()


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "build_sam_med2d", lambda: build_sam_med2d(**TINY))
    state = filled(build_sam_med2d(**TINY)).state_dict()
    optimiser = {"state": {}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"model": state, "optimizer": optimiser}, tmp_path / "sam-med2d_b.pth")
    return tmp_path / "sam-med2d_b.pth"


def test_the_numbers_of_the_official_code():
    sam = filled(build_sam_med2d(**TINY))
    quicken(sam)
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    embedding = sam.image_encoder((pixels - sam.pixel_mean) / sam.pixel_std)
    box = torch.tensor([[40.0, 60.0, 200.0, 180.0]])
    sparse, dense = sam.prompt_encoder(points=None, boxes=box, masks=None)
    logits, ious = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    np.testing.assert_allclose(embedding[0, ::64, ::5, ::5].flatten()[:12], EMBEDDING, atol=2e-5)
    np.testing.assert_allclose(ious[0], IOUS, atol=2e-5)
    np.testing.assert_allclose(logits[0, :, ::21, ::21].flatten()[:12], LOGITS, atol=2e-4)
    assert [int((mask > 0).sum()) for mask in logits[0]] == pytest.approx(PIXELS, abs=2)


def test_the_full_model_has_the_size_of_the_official_one():
    with torch.device("meta"):
        sam = build_sam_med2d()
    assert sum(value.numel() for value in sam.parameters()) == 271_241_776


def test_the_cascade_labels_with_it(checkpoint):
    image = make_phantom("chest_xray", 0, bank="tune", size=96).image
    exact = Cascade(config_of(checkpoint))(image)
    assert exact.candidates
    assert exact.masks
    fast = Cascade(config_of(checkpoint, "run.precision=fast"))(image)
    ious = [[c.predicted_iou for c in result.candidates][:5] for result in (exact, fast)]
    np.testing.assert_allclose(*ious, atol=0.2)


def test_a_sam_without_adapters_is_refused(checkpoint):
    saved = torch.load(checkpoint)
    saved["model"] = {name: v for name, v in saved["model"].items() if "Adapter" not in name}
    torch.save(saved, checkpoint)
    with pytest.raises(WeightsError, match=r"not a checkpoint of sam_med2d: .*Adapter.* absent"):
        Cascade(config_of(checkpoint))
