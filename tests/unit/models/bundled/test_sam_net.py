"""The bundled SAM runs under the official classes, loads exported weights, and is small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam
from torch.utils.flop_counter import FlopCounterMode

from salip_ray.errors import WeightsError
from salip_ray.models.bundled.phantoms import KINDS, make_phantom
from salip_ray.models.bundled.sam_net import (
    EMBED_DIM,
    GRID,
    IMAGE_SIZE,
    WEIGHTS,
    build_bundled_sam,
    load_bundled_sam,
)
from training.sam_losses import decode
from training.sam_prompts import TARGET_ORGANS
from training.sam_train import export_sam

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shipped() -> Sam:
    return load_bundled_sam()


@pytest.fixture
def random_sam() -> Sam:
    torch.manual_seed(0)
    return build_bundled_sam().eval()


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _target(kind: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask of one target organ of a phantom of the tuning bank."""
    phantom = make_phantom(kind, index, bank="tune")
    return phantom.image, phantom.mask(TARGET_ORGANS[kind][0])


def _box(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    return np.array((xs.min(), ys.min(), xs.max(), ys.max()))


def test_the_network_is_small(random_sam: Sam) -> None:
    image = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        embedding = random_sam.image_encoder(image)
    assert embedding.shape == (1, EMBED_DIM, GRID, GRID)
    assert flops.get_total_flops() < 5e9
    assert WEIGHTS.stat().st_size < 6e6


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(random_sam: Sam) -> None:
    images = torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = random_sam.image_encoder(images)
        alone = random_sam.image_encoder(images[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_batched_decoding_is_the_official_decoding(random_sam: Sam) -> None:
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(1, EMBED_DIM, GRID, GRID, generator=generator)
    points = 255 * torch.rand(5, 1, 2, generator=generator)
    sparse, dense = random_sam.prompt_encoder((points, torch.ones(5, 1)), None, None)
    position = random_sam.prompt_encoder.get_dense_pe()
    with torch.no_grad():
        expected = random_sam.mask_decoder.predict_masks(embedding, position, sparse, dense)
        ours = decode(
            random_sam.mask_decoder,
            embedding.expand(5, -1, -1, -1),
            position,
            sparse,
            dense,
        )
    for got, want in zip(ours, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_official_predictor_finds_the_organ_in_its_box(shipped: Sam, kind: str) -> None:
    scores = []
    predictor = SamPredictor(shipped)
    for index in range(5):
        image, organ = _target(kind, index)
        if not organ.any():
            continue
        predictor.set_image(image)
        masks, _, _ = predictor.predict(box=_box(organ), multimask_output=False)
        assert masks.shape == (1, *organ.shape)
        scores.append(_iou(masks[0], organ))
    assert np.mean(scores) > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_official_generator_proposes_the_organ(shipped: Sam, kind: str) -> None:
    generator = SamAutomaticMaskGenerator(
        shipped, points_per_side=8, pred_iou_thresh=0.6, stability_score_thresh=0.6
    )
    best = []
    for index in range(2):
        image, organ = _target(kind, index)
        if not organ.any():
            continue
        masks = generator.generate(image)
        best.append(max((_iou(mask["segmentation"], organ) for mask in masks), default=0.0))
    assert np.mean(best) > 0.7


def test_the_predictor_accepts_any_aspect(shipped: Sam) -> None:
    predictor = SamPredictor(shipped)
    predictor.set_image(np.full((300, 500, 3), 90, np.uint8))
    masks, quality, low_res = predictor.predict(
        point_coords=np.array([[250, 150]]), point_labels=np.array([1])
    )
    assert masks.shape == (3, 300, 500)
    assert quality.shape == (3,)
    assert low_res.shape == (3, 4 * GRID, 4 * GRID)


def test_exported_weights_are_the_trained_ones_as_float16(random_sam: Sam, tmp_path: Path) -> None:
    export_sam(random_sam, tmp_path / "sam.safetensors")
    loaded = load_bundled_sam(tmp_path / "sam.safetensors")
    assert not loaded.training
    for name, tensor in random_sam.state_dict().items():
        again = loaded.state_dict()[name]
        assert again.dtype == torch.float32
        assert torch.equal(again, tensor.half().float()), name


def test_unusable_weights_are_errors_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "sam.safetensors"
    with pytest.raises(WeightsError, match=r"sam\.safetensors: no such file"):
        load_bundled_sam(path)
    path.write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match=r"sam\.safetensors: not a safetensors file"):
        load_bundled_sam(path)
    save_file({"image_encoder.stem": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"sam\.safetensors: made for another network"):
        load_bundled_sam(path)
