"""SAM 2 in our generator: the masks of transformers' Sam2Model, on random weights."""

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
from salip_ray.models.identity import identify
from salip_ray.models.registry import shares_embedding

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 64
ALL_LABELS = ("task.max_area=1", "task.min_area=0", "task.min_confidence=0")
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def tiny_sam2(seed: int = 0):
    """A small Sam2Model with random weights."""
    import transformers as t

    torch.manual_seed(seed)
    backbone = t.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = t.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[SIDE // n, SIDE // n] for n in (4, 8, 16)],
        fpn_hidden_size=32,
    )
    config = t.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=t.Sam2PromptEncoderConfig(
            hidden_size=32, image_size=SIDE, patch_size=16, mask_input_channels=8
        ),
        mask_decoder_config=t.Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=48, num_attention_heads=4, iou_head_hidden_dim=32
        ),
    )
    model = t.Sam2Model(config).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        if "norm" not in name and tensor.ndim > 1:
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    return model


@pytest.fixture(scope="module")
def theirs():
    return tiny_sam2()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam2")
    theirs.save_pretrained(folder)
    return folder


def config_of(folder, *more, **propose):
    settings = {
        "model": "sam2",
        "weights": {"model": str(folder)},
        "points_per_side": 8,
        "points_per_batch": 5,
        "pred_iou_thresh": 0.2,
        "stability_score_thresh": 0.1,
        "box_nms_thresh": 0.95,
        "min_mask_region_area": 0,
        **propose,
    }
    values = {"propose": settings, "refine": {"model": "sam2"}, "image": {"long_side": 80}}
    given = [
        f"{section}.{name}={json.dumps(value)}"
        for section, fields in values.items()
        for name, value in fields.items()
    ]
    return load_config("lungs", overrides=[*given, *ALL_LABELS, *more])


@pytest.fixture(scope="module")
def image():
    return make_phantom("chest_xray", 1, bank="tune", size=80).image


def pixels_of(image):
    planes = torch.as_tensor(image.copy()).permute(2, 0, 1)[None].float() / 255
    square = F.interpolate(planes, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (square - MEAN) / STD


@torch.no_grad()
def official_masks(theirs, image, settings):
    """The official generator of one view, point by point, with Sam2Model's own forward."""
    height, width = image.shape[:2]
    (grid,) = build_all_layer_point_grids(settings.points_per_side, 0, 1)
    survivors = []
    for x, y in grid:
        answer = theirs(
            pixel_values=pixels_of(image),
            input_points=torch.tensor([[[[x * SIDE, y * SIDE]]]], dtype=torch.float),
            multimask_output=True,
        )
        logits = F.interpolate(answer.pred_masks[0], (height, width), mode="bilinear")[0]
        ious = answer.iou_scores[0, 0]
        stability = calculate_stability_score(logits, 0.0, settings.stability_score_offset)
        boxes = batched_mask_to_box(logits > 0)
        whole = [0, 0, width, height]
        edge = is_box_near_crop_edge(boxes, whole, whole)
        for index in range(3):
            good = ious[index] > settings.pred_iou_thresh
            good &= stability[index] >= settings.stability_score_thresh
            if good and not edge[index]:
                survivors.append(
                    (logits[index] > 0, ious[index], boxes[index], (x * width, y * height))
                )
    boxes = torch.stack([box for _, _, box, _ in survivors]).float()
    order = nms(boxes, torch.stack([iou for _, iou, _, _ in survivors]), settings.box_nms_thresh)
    return [survivors[index] for index in order]


def test_candidates_equal_those_of_an_official_generator(theirs, folder, image):
    config = config_of(folder)
    proposals = load_proposer(config)(image)
    expected = official_masks(theirs, image, config.propose)
    assert len(expected) > 5
    ours = proposals.candidates
    expected = [item for item in expected if item[0].any()]  # empty ones fail the area filter
    assert len(ours) == len(expected)
    for candidate, (mask, iou, _, point) in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(candidate.mask, mask.numpy())
        assert candidate.predicted_iou == pytest.approx(iou.item(), abs=1e-5)
        assert candidate.point == pytest.approx(point)


def test_a_box_gives_the_mask_of_transformers(theirs, folder, image):
    refiner = load_refiner(config_of(folder))
    proposals = load_proposer(config_of(folder))(image)
    assert {name: level.shape for name, level in proposals.embedding.items()} == {
        "fine": (1, 4, 16, 16),
        "middle": (1, 8, 8, 8),
        "coarse": (1, 32, 4, 4),
    }
    height, width = image.shape[:2]
    box, size = (10.0, 12.0, 50.0, 44.0), (2 * height, 2 * width)
    refined = refiner(
        proposals.embedding, boxes=[box], working_size=(height, width), original_size=size
    )
    scale = torch.tensor([SIDE / width, SIDE / height] * 2)
    with torch.no_grad():
        answer = theirs(
            pixel_values=pixels_of(image),
            input_boxes=(torch.tensor(box) * scale)[None, None],
            multimask_output=False,
        )
    logits = F.interpolate(answer.pred_masks[0], size, mode="bilinear")[0, 0]
    np.testing.assert_array_equal(refined.masks[0], (logits > 0).numpy())
    assert refined.predicted_iou[0] == pytest.approx(answer.iou_scores.item(), abs=1e-5)


def test_the_refiner_has_the_weights_of_the_proposer_unless_it_names_others(
    folder, image, tmp_path
):
    config = config_of(folder)
    assert shares_embedding(config)
    assert list(identify(config)) == ["clip", "propose.model"]
    tiny_sam2(seed=1).save_pretrained(tmp_path)
    weights = json.dumps({"model": str(tmp_path)})
    other = config_of(folder, f"refine.weights={weights}")
    assert not shares_embedding(other)
    assert set(identify(other)) == {"clip", "propose.model", "refine.model"}
    same, different = (Cascade(each)(image) for each in (config, other))
    assert [c.id for c in same.candidates] == [c.id for c in different.candidates]
    assert same.masks[0].sam != different.masks[0].sam


def test_smaller_batches_and_crops_give_the_same_candidates(folder, image):
    config = config_of(folder, crop_n_layers=1)
    proposer = load_proposer(config)
    decoded, _ = proposer.decode_views(image)
    assert len(decoded) == 5  # the image and its four crops
    first = proposer(image)
    proposer.set_batch_size(1)
    again = proposer(image)
    assert first.candidates
    assert [c.point for c in first.candidates] == [c.point for c in again.candidates]


def test_other_folders_are_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="holds no SAM 2"):
        load_proposer(config_of(tmp_path))
    with pytest.raises(ConfigError, match="needs model: a folder of SAM 2"):
        load_proposer(load_config("lungs", overrides=["propose.model=sam2"]))


def test_weights_that_lack_a_tensor_are_refused(folder, tmp_path, capfd):
    """transformers would draw its values at random."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = load_file(folder / "model.safetensors")
    lost = sorted(state)[-1]
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=rf"holds no SAM 2 .*: its weights lack {lost}"):
        load_proposer(config_of(tmp_path))
    assert capfd.readouterr().err == ""
    with pytest.raises(WeightsError, match=r"model.safetensors is a file: give the folder"):
        load_proposer(config_of(tmp_path / "model.safetensors"))
