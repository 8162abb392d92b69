"""SAM-HQ on our encoder and decoder: the official masks, on random weights.

The modules are those of transformers' SamHQModel. Its own mask decoder (5.24) upscales the image
embedding that enters the two-way transformer, so the official decoder's steps are written out
here; ``tests/parity/test_families.py`` compares with the official package.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything.utils.amg import (
    batched_mask_to_box,
    build_all_layer_point_grids,
    calculate_stability_score,
    is_box_near_crop_edge,
)
from torch.nn import functional as F
from torchvision.ops import nms

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.loading import load_proposer, load_refiner
from salip_ray.config import load_config
from salip_ray.errors import ConfigError, WeightsError
from salip_ray.models.bundled.phantoms import make_phantom

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 128
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def tiny_sam_hq():
    """A small SamHQModel with random weights."""
    import transformers as t

    torch.manual_seed(1)
    config = t.SamHQConfig(
        vision_config={
            "hidden_size": 48,
            "output_channels": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": SIDE,
            "window_size": 3,
            "global_attn_indexes": [1, 2],
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 48,
            "iou_head_hidden_dim": 24,
            "vit_dim": 48,
        },
    )
    model = t.SamHQModel(config).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        if "norm" not in name and tensor.ndim > 1:
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    return model


@pytest.fixture(scope="module")
def theirs():
    return tiny_sam_hq()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam-hq")
    theirs.save_pretrained(folder)
    return folder


def config_of(folder, *more, **propose):
    settings = {
        "model": "sam-hq",
        "weights": {"model": str(folder)},
        "points_per_side": 8,
        "points_per_batch": 7,
        "pred_iou_thresh": 0.1,
        "stability_score_thresh": 0.1,
        "box_nms_thresh": 1,  # random masks fill the image
        "min_mask_region_area": 0,
        **propose,
    }
    values = {"propose": settings, "refine": {"model": "sam-hq"}, "image": {"long_side": 80}}
    given = [
        f"{section}.{name}={json.dumps(value)}"
        for section, fields in values.items()
        for name, value in fields.items()
    ]
    limits = ("task.max_area=1", "task.min_area=0", "task.min_confidence=0")
    return load_config("lungs", overrides=[*given, *limits, *more])


@pytest.fixture(scope="module")
def image():
    return make_phantom("brain_mri", 3, bank="tune", size=SIDE + 8).image[:SIDE, 16:SIDE]


def padded(image):
    """The model's input: the long side is that of the model already."""
    planes = (torch.as_tensor(image.copy()).permute(2, 0, 1) - MEAN) / STD
    return F.pad(planes, (0, SIDE - image.shape[1], 0, SIDE - image.shape[0]))[None]


def full_size(logits, size):
    square = F.interpolate(logits[None], (SIDE, SIDE), mode="bilinear")[..., : size[0], : size[1]]
    return F.interpolate(square, size, mode="bilinear")[0]


@torch.no_grad()
def decode(theirs, image, *, points=None, box=None):
    """Return the mask's logits [h, w] and predicted IoU by the steps of the official decoder."""
    decoder = theirs.mask_decoder
    embedding, early = theirs.get_image_embeddings(padded(image))
    prompt = {
        "input_points": None if points is None else torch.tensor([[[points]]], dtype=torch.float),
        "input_labels": None if points is None else torch.ones(1, 1, 1, dtype=torch.int),
        "input_boxes": None if box is None else torch.tensor(box)[None, None],
    }
    sparse, dense = theirs.prompt_encoder(**prompt, input_masks=None)
    tokens = torch.cat(
        [part.weight for part in (decoder.iou_token, decoder.mask_tokens, decoder.hq_token)]
    )
    hidden, keys = decoder.transformer(
        point_embeddings=torch.cat([tokens[None, None], sparse], dim=2),
        image_embeddings=embedding + dense,
        image_positional_embeddings=theirs.get_image_wide_positional_embeddings(),
        attention_similarity=None,
        target_embedding=None,
    )
    act = decoder.activation
    compressed = act(
        decoder.compress_vit_norm(decoder.compress_vit_conv1(early[0].permute(0, 3, 1, 2)))
    )
    encoded = act(decoder.encoder_norm(decoder.encoder_conv1(embedding)))
    features = decoder.encoder_conv2(encoded) + decoder.compress_vit_conv2(compressed)
    planes = keys[0].transpose(1, 2).view_as(embedding)
    fine = act(decoder.upscale_layer_norm(decoder.upscale_conv1(planes)))
    fine = act(decoder.upscale_conv2(fine))
    hq = decoder.mask_conv2(act(decoder.mask_norm(decoder.mask_conv1(fine)))) + features
    ious = decoder.iou_prediction_head(hidden[0, 0, 0])
    best = 0 if points is None else 1 + int(ious[1:].argmax())
    kernel = decoder.output_hypernetworks_mlps[best](hidden[0, 0, 1 + best])
    hq_kernel = decoder.hq_mask_mlp(hidden[0, 0, 5])
    logits = torch.einsum("c,chw->hw", kernel, fine[0])
    return logits + torch.einsum("c,chw->hw", hq_kernel, hq[0]), ious[best]


def official_masks(theirs, image, settings):
    """The official generator of one view, point by point."""
    height, width = image.shape[:2]
    (grid,) = build_all_layer_point_grids(settings.points_per_side, 0, 1)
    survivors = []
    for x, y in grid:
        low_res, iou = decode(theirs, image, points=[x * width, y * height])
        logits = full_size(low_res[None], (height, width))
        stability = calculate_stability_score(logits, 0.0, settings.stability_score_offset)
        boxes = batched_mask_to_box(logits > 0)
        whole = [0, 0, width, height]
        good = iou > settings.pred_iou_thresh and stability[0] >= settings.stability_score_thresh
        if good and not is_box_near_crop_edge(boxes, whole, whole)[0]:
            survivors.append((logits[0] > 0, iou, boxes[0], (x * width, y * height)))
    boxes = torch.stack([box for _, _, box, _ in survivors]).float()
    order = nms(boxes, torch.stack([iou for _, iou, _, _ in survivors]), settings.box_nms_thresh)
    return [survivors[index] for index in order if survivors[index][0].any()]


def test_candidates_equal_those_of_an_official_generator(theirs, folder, image):
    config = config_of(folder)
    proposals = load_proposer(config)(image)
    expected = official_masks(theirs, image, config.propose)
    assert len(expected) > 5
    assert len(proposals.candidates) == len(expected)
    for candidate, (mask, iou, _, point) in zip(proposals.candidates, expected, strict=True):
        np.testing.assert_array_equal(candidate.mask, mask.numpy())
        assert candidate.predicted_iou == pytest.approx(iou.item(), abs=1e-4)
        assert candidate.point == pytest.approx(point)


@pytest.mark.parametrize("threshold", [0, 0.1])
def test_batches_of_any_size_give_the_same_candidates(folder, image, threshold):
    proposer = load_proposer(config_of(folder, pred_iou_thresh=threshold))
    first = proposer(image)
    proposer.set_batch_size(1)
    assert first.candidates
    again = proposer(image).candidates
    assert [c.point for c in first.candidates] == [c.point for c in again]


def test_an_image_on_which_no_mask_passes_has_no_candidates(folder, image):
    proposer = load_proposer(config_of(folder, pred_iou_thresh=0.5))
    proposer.sam.mask_decoder.iou_prediction_head.layers[-1].bias -= 1000
    assert proposer(image).candidates == ()


def test_a_box_gives_the_official_mask(theirs, folder, image):
    refiner = load_refiner(config_of(folder))
    embedding = load_proposer(config_of(folder))(image).embedding
    assert {name: tuple(value.shape) for name, value in embedding.items()} == {
        "image": (1, 32, 8, 8),
        "fine": (1, 4, 32, 32),
    }
    size, box = image.shape[:2], (20.0, 24.0, 90.0, 100.0)
    refined = refiner(embedding, boxes=[box], working_size=size, original_size=size)
    low_res, iou = decode(theirs, image, box=box)
    logits = full_size(low_res[None], size)
    np.testing.assert_array_equal(refined.masks[0], (logits[0] > 0).numpy())
    assert refined.predicted_iou[0] == pytest.approx(iou.item(), abs=1e-4)


def test_the_cascade_labels_with_it_exactly_and_fast(folder):
    image = make_phantom("chest_xray", 0, bank="tune", size=96).image
    for precision in ("exact", "fast"):
        result = Cascade(config_of(folder, f"run.precision={precision}"))(image)
        assert result.masks


def test_a_refiner_with_other_weights_encodes_the_image_itself(folder, image, tmp_path):
    tiny_sam_hq().save_pretrained(tmp_path)
    weights = json.dumps({"model": str(tmp_path)})
    same, other = (
        Cascade(config_of(folder, *more))(image) for more in ((), (f"refine.weights={weights}",))
    )
    np.testing.assert_array_equal(same.masks[0].mask, other.masks[0].mask)


def test_other_weights_are_refused(folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    with pytest.raises(ConfigError, match="needs model: sam_hq_vit_b"):
        load_proposer(load_config("lungs", overrides=["propose.model=sam-hq"]))
    file = tmp_path / "hq.safetensors"
    save_file(state, file)
    with pytest.raises(WeightsError, match="has an image encoder of width 48: SAM-HQ has 768"):
        load_proposer(config_of(file))
    del state["mask_decoder.hq_token.weight"]
    save_file(state, file)
    with pytest.raises(WeightsError, match="is not a SAM-HQ: it has no mask_decoder"):
        load_proposer(config_of(file))


def test_what_is_left_of_a_folder_is_refused(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"has no model.safetensors"):
        load_proposer(config_of(tmp_path))
    state = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text('{"vision_config": {}}')
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"is not a whole SAM-HQ \(KeyError"):
        load_proposer(config_of(tmp_path))
    shutil.copy(folder / "config.json", tmp_path)
    del state["mask_decoder.iou_token.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"is not a whole SAM-HQ \(KeyError"):
        load_proposer(config_of(tmp_path))
