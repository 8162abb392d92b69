"""The quick SAM and CLIP against the official modules, module by module, and in bfloat16."""

from __future__ import annotations

import copy

import cv2
import open_clip
import PIL.Image
import pytest
import torch
from segment_anything.modeling.image_encoder import Block

from salip_ray.config import ClipConfig, SamConfig
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.models.clip.load import load_clip
from salip_ray.models.clip.transform import DeviceTransform
from salip_ray.models.sam.encoder import QuickBlock, attention
from salip_ray.models.sam.load import load_sam, quicken


@pytest.fixture(scope="module")
def official():
    return load_bundled_sam().requires_grad_(False)


@pytest.fixture(scope="module")
def quick(official):
    sam = copy.deepcopy(official)
    quicken(sam)
    return sam


@pytest.mark.parametrize("window", [0, 14, 7], ids=lambda w: f"window {w}")
@pytest.mark.parametrize("bias", [True, False])
def test_a_block_with_windows_and_padding(window, bias):
    """A 17x20 grid fits no window: the padding counts as the official block counts it."""
    torch.manual_seed(0)
    block = Block(
        24, 3, qkv_bias=bias, use_rel_pos=True, window_size=window, input_size=(17, 20)
    ).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    quick = QuickBlock(block)
    assert quick.state_dict().keys() == block.state_dict().keys()
    x = torch.randn(2, 17, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(quick(x), block(x), atol=2e-5, rtol=1e-5)


def test_slices_of_scores_make_no_difference(monkeypatch):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 48, 8)
    rows, columns = torch.randn(2, 3, 48, 6), torch.randn(2, 3, 48, 8)
    whole = attention(q, k, v, rows, columns, scale=0.3)
    bias = (rows[..., :, None] + columns[..., None, :]).flatten(-2)
    expected = (0.3 * q @ k.transpose(-1, -2) + bias).softmax(-1) @ v
    torch.testing.assert_close(whole, expected)
    for limit in (1, 5000, 20_000):
        monkeypatch.setattr("salip_ray.models.sam.encoder._SCORES_BYTES", limit)
        torch.testing.assert_close(attention(q, k, v, rows, columns, scale=0.3), expected)


def test_the_gpus_attention_is_the_same_mathematics(monkeypatch):
    """Relative positions in queries and keys; run on the CPU: slow but correct."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 48, 8)
    rows, columns = torch.randn(2, 3, 48, 6), torch.randn(2, 3, 48, 8)
    expected = attention(q, k, v, rows, columns, scale=0.3)
    result = attention(q, k, v, rows, columns, scale=0.3, sliced=False)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_the_decoder_is_the_official_one(official, quick, multimask, kind):
    torch.manual_seed(0)
    embedding = torch.randn(1, 96, 16, 16)
    points = (torch.rand(9, 1, 2) * 256, torch.ones(9, 1)) if kind == "points" else None
    boxes = torch.rand(9, 4) * 256 if kind == "boxes" else None
    sparse, dense = official.prompt_encoder(points, boxes, None)
    inputs = embedding, official.prompt_encoder.get_dense_pe(), sparse, dense, multimask
    expected, result = official.mask_decoder(*inputs), quick.mask_decoder(*inputs)
    for one, other in zip(result, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)


def test_prompt_with_mask_equals_official_decoder(official, quick):
    embedding, masks = torch.randn(1, 96, 16, 16), torch.randn(3, 1, 64, 64)
    boxes = torch.rand(3, 4) * 256
    sparse, dense = official.prompt_encoder(None, boxes, masks)
    inputs = embedding, official.prompt_encoder.get_dense_pe(), sparse, dense, True
    for one, other in zip(quick.mask_decoder(*inputs), official.mask_decoder(*inputs), strict=True):
        assert torch.equal(one, other)


def test_masks_below_the_threshold_are_not_made(official, quick):
    torch.manual_seed(1)
    embedding, points = torch.randn(1, 96, 16, 16), torch.rand(20, 1, 2) * 256
    sparse, dense = official.prompt_encoder((points, torch.ones(20, 1)), None, None)
    inputs = embedding, official.prompt_encoder.get_dense_pe(), sparse, dense
    logits, ious = official.mask_decoder(*inputs, True)
    values = ious.flatten().sort().values
    threshold = float((values[29] + values[30]) / 2)
    result = quick.mask_decoder.above(*inputs, threshold)
    keep = ious > threshold
    assert result.prompt.tolist() == keep.nonzero()[:, 0].tolist()
    torch.testing.assert_close(result.logits, logits[keep], atol=2e-4, rtol=1e-4)
    assert len(quick.mask_decoder.above(*inputs, 2.0).logits) == 0


def test_fast_sam_is_near_the_exact_one(official):
    fast = load_sam(SamConfig(), precision="fast")
    assert {p.dtype for p in fast.image_encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in fast.prompt_encoder.parameters()} == {torch.float32}
    image = torch.as_tensor(make_phantom("chest_xray", 0, bank="tune").image).permute(2, 0, 1)
    boxes = torch.tensor([[20.0, 30, 110, 180], [120, 30, 220, 190]])
    masks = []
    for sam in (official, fast):
        embedding = sam.image_encoder(sam.preprocess(image[None])).float()
        sparse, dense = sam.prompt_encoder(None, boxes, None)
        pe = sam.prompt_encoder.get_dense_pe()
        logits, _ = sam.mask_decoder(embedding, pe, sparse, dense, multimask_output=False)
        assert logits.dtype == torch.float32
        masks.append(logits > 0)
        # A mask that is separate goes the official way, in bfloat16 as well.
        sparse, dense = sam.prompt_encoder(None, boxes, logits)
        again, _ = sam.mask_decoder(embedding, pe, sparse, dense, multimask_output=False)
        assert again.dtype == torch.float32
    one, other = masks
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.98


@pytest.mark.parametrize("mode", ["shortest", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_devices_resize_is_pillows_within_grey_levels(mode, interpolation):
    transform = open_clip.image_transform(
        64, is_train=False, resize_mode=mode, interpolation=interpolation
    )
    ours = DeviceTransform.like(transform)
    assert ours is not None
    sizes = [(64, 64), (200, 91), (33, 150), (7, 9), (256, 256), (1, 40)]
    if mode == "longest":
        sizes.pop()  # open_clip makes no picture of less than half a pixel
    phantom = make_phantom("brain_mri", 0, bank="tune", size=300).image
    pictures = [cv2.resize(phantom, size[::-1]) for size in sizes]
    expected = torch.stack([transform(PIL.Image.fromarray(picture)) for picture in pictures])
    result = ours(pictures, torch.device("cpu"))
    levels = (result - expected).abs() * torch.tensor(ours.std).view(3, 1, 1) * 255
    assert levels.mean() < 0.2
    assert (levels > 3.01).float().mean() < 0.005


def test_a_transform_of_another_kind_is_left_to_pillow():
    squash = open_clip.image_transform(64, is_train=False, resize_mode="squash")
    assert DeviceTransform.like(squash) is None


def test_fast_clip_is_near_the_exact_one():
    pictures = [
        make_phantom(kind, 0, bank="tune").image[40:200, 30:220]
        for kind in ("chest_xray", "brain_mri", "fetal_ultrasound")
    ]
    exact = load_clip(ClipConfig())
    fast = load_clip(ClipConfig(), precision="fast", resize="device")
    assert fast.on_device is not None
    assert torch.equal(exact.encode_texts(["a lung"]), fast.encode_texts(["a lung"]))
    cosines = (exact.encode_images(pictures) * fast.encode_images(pictures)).sum(1)
    assert cosines.min() > 0.995
