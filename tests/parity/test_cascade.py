"""The cascade gives the candidates, order, picks and masks of a loop over the official packages.

The same sums are made in another order, so rounding differs: a pixel whose logit is nearly zero may
fall on either side. Masks may therefore differ in single pixels, never more.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from benchmarks.parity import compare
from benchmarks.serial import SerialCascade
from salip_ray.cascade.cascade import Cascade
from salip_ray.config import ClipConfig, load_config
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.models.clip.load import load_clip
from salip_ray.models.sam.load import quicken

pytestmark = pytest.mark.usefixtures("one_thread")

_STRAY_PIXELS = 3  # over all candidates of an image, of some million


@pytest.fixture(scope="module")
def clip():
    return load_clip(ClipConfig())


def both(task, sam, clip, image, overrides):
    """Return the results of both on an image; the official SAM is not changed."""
    # The official packages know no limit of confidence.
    limit = {"min_confidence": 0.0}
    changes = {**overrides, "task": {**overrides.get("task", {}), **limit}}
    config = load_config(task, overrides=changes)
    quick = copy.deepcopy(sam)
    quicken(quick)
    ours = Cascade(config, device="cpu", sam=quick, clip=clip)(image)
    return ours, SerialCascade(config, sam, clip)(image)


def assert_parity(ours, official, stray=_STRAY_PIXELS):
    parity = compare(ours, official)
    assert parity.candidates
    assert parity.picks
    assert parity.candidate_pixels <= stray
    assert parity.label_pixels <= stray
    assert {mask.label for mask in ours.masks} <= set(official.masks)


def image_of(kind, size, index=0):
    """Return a phantom, cut to ``size`` (height, width)."""
    phantom = make_phantom(kind, index, bank="tune", size=max(size)).image
    return np.ascontiguousarray(phantom[: size[0], : size[1]])


# The bundled SAM's predicted IoUs are low on purpose: thresholds of each setting let some pass.
SETTINGS = {
    "preset": {},
    "everything": {
        "points_per_side": 5,
        "pred_iou_thresh": 0,
        "stability_score_thresh": 0,
        "box_nms_thresh": 1,
    },
    "confident": {"pred_iou_thresh": 0.6, "stability_score_thresh": 0.6},
    "strict NMS": {"box_nms_thresh": 0.4, "pred_iou_thresh": 0.1},
    "offset": {"stability_score_offset": 2.5, "stability_score_thresh": 0.3},
    "odd batches": {"points_per_batch": 7},
    "no cleaning": {"min_mask_region_area": 0},
    "much cleaning": {"min_mask_region_area": 900, "pred_iou_thresh": 0.2},
    "1 crop layer": {
        "crop_n_layers": 1,
        "crop_n_points_downscale_factor": 2,
        "crop_nms_thresh": 0.9,
    },
    "2 crop layers": {
        "points_per_side": 4,
        "crop_n_layers": 2,
        "crop_overlap_ratio": 0.5,
        "crop_n_points_downscale_factor": 2,
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bundled_models_have_parity_for_each_setting(clip, name):
    propose = {"points_per_side": 6, **SETTINGS[name]}
    image = image_of("chest_xray", (256, 230))
    ours, official = both("lungs", load_bundled_sam(), clip, image, {"propose": propose})
    assert_parity(ours, official)
    assert ours.candidates


@pytest.mark.parametrize(
    ("task", "kind", "size"),
    [
        ("lungs", "chest_xray", (256, 256)),
        ("lungs", "chest_xray", (97, 61)),
        ("brain", "brain_mri", (200, 256)),
        ("brain", "brain_mri", (300, 411)),
        ("fetal_head", "fetal_ultrasound", (97, 61)),
        ("fetal_head", "fetal_ultrasound", (256, 200)),
    ],
    ids=str,
)
def test_bundled_models_have_parity_for_kinds_and_sizes(clip, task, kind, size):
    overrides = {"propose": {"points_per_side": 6, "pred_iou_thresh": 0.3}}
    image = image_of(kind, size, index=1)
    ours, official = both(task, load_bundled_sam(), clip, image, overrides)
    assert_parity(ours, official)


@pytest.mark.parametrize("prompt", ["crops", "crop_expand", "bbox", "reverse_box_mask", "contour"])
@pytest.mark.parametrize("padding", ["none", "square"])
def test_every_visual_prompt_has_parity(clip, prompt, padding):
    overrides = {
        "propose": {"points_per_side": 3, "pred_iou_thresh": 0.2, "min_mask_region_area": 0},
        "retrieve": {"visual_prompt": prompt, "padding": padding},
        "task": {"min_area": 0},  # candidates of a few pixels, too
    }
    image = image_of("brain_mri", (256, 224))
    ours, official = both("brain", load_bundled_sam(), clip, image, overrides)
    assert_parity(ours, official)
    assert official.picks


@pytest.mark.parametrize("layers", [0, 1])
def test_an_image_without_candidates_has_parity(clip, layers):
    propose = {"points_per_side": 4, "pred_iou_thresh": 1, "crop_n_layers": layers}
    image = image_of("chest_xray", (256, 256))
    ours, official = both("lungs", load_bundled_sam(), clip, image, {"propose": propose})
    assert_parity(ours, official)
    assert ours.n_proposed == 0
    assert not ours.masks


def random_sam(side: int, seed: int = 0) -> Sam:
    """Return a narrow SAM with ViT-B's structure, windows and global blocks, at ``side`` pixels."""
    torch.manual_seed(seed)
    grid, channels = side // 16, 32
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=side,
            embed_dim=48,
            depth=3,
            num_heads=3,
            out_chans=channels,
            use_rel_pos=True,
            rel_pos_zero_init=False,
            window_size=14,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=4,
        ),
        mask_decoder=MaskDecoder(
            transformer=TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=64, num_heads=4),
            transformer_dim=channels,
        ),
    )
    return with_contrast(sam, rel_pos=0.3)


def with_contrast(sam: Sam, rel_pos: float = 0.02) -> Sam:
    """Set random weights so that relative positions matter and masks have contrast."""
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=rel_pos)
        if "hypernetworks" in name and "layers.2.weight" in name:
            parameter.data.mul_(40)
    return sam.eval().requires_grad_(False)


#: Every mask of a few points is a candidate.
ALL_OF_FEW = {
    "propose": {
        "points_per_side": 2,
        "pred_iou_thresh": 0,
        "stability_score_thresh": 0,
        "box_nms_thresh": 1,
        "min_mask_region_area": 0,
    },
    "task": {"min_area": 0, "max_area": 1},
}


@pytest.mark.parametrize("size", [(700, 1024), (512, 340)], ids=str)
def test_a_random_sam_at_1024_px_has_parity(clip, size):
    """Every tensor has the shape of the official models; the masks mean nothing."""
    image = image_of("chest_xray", size)
    overrides = {
        "image": {"long_side": max(image.shape)},
        **ALL_OF_FEW,
    }
    ours, official = both("lungs", random_sam(1024), clip, image, overrides)
    assert_parity(ours, official)
    assert ours.candidates


@pytest.mark.slow
@pytest.mark.parametrize("index", range(3))
def test_vit_b_at_full_size_has_parity(clip, index):
    """Run the official encoder's 12 blocks, with random weights (minutes)."""
    overrides = {
        "image": {"long_side": 1024},
        **ALL_OF_FEW,
    }
    torch.manual_seed(index)
    sam = with_contrast(sam_model_registry["vit_b"]())
    image = image_of(("chest_xray", "brain_mri", "fetal_ultrasound")[index], (512, 480), index)
    ours, official = both("lungs", sam, clip, image, overrides)
    # A pixel in a million: up to 12 masks of a million pixels each.
    assert_parity(ours, official, stray=len(ours.candidates))
    assert ours.candidates
