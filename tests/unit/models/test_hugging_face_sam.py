"""SAM from Hugging Face's files: the same masks as transformers, on random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from salip_ray.cascade import sam_ops
from salip_ray.config import SamConfig
from salip_ray.errors import WeightsError
from salip_ray.models.sam import hugging_face
from salip_ray.models.sam import load as sam_models
from salip_ray.models.sam.load import load_sam

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE, GRID, CHANNELS = 64, 8, 32
ATOL = 2e-5


def tiny_official(checkpoint=None) -> Sam:
    """SAM of the official modules, with the sizes of ``tiny_config``."""
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=SIDE,
            patch_size=SIDE // GRID,
            embed_dim=48,
            depth=3,
            num_heads=3,
            mlp_ratio=2,
            out_chans=CHANNELS,
            qkv_bias=True,
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
            norm_layer=lambda size: torch.nn.LayerNorm(size, eps=1e-6),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(GRID, GRID),
            input_image_size=(SIDE, SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=CHANNELS, mlp_dim=64, num_heads=4),
            transformer_dim=CHANNELS,
            iou_head_depth=3,
            iou_head_hidden_dim=24,
        ),
    )


@pytest.fixture(scope="module")
def theirs():
    """A small SamModel with random weights."""
    import transformers as t

    torch.manual_seed(0)
    config = t.SamConfig(
        vision_config=t.SamVisionConfig(
            hidden_size=48,
            output_channels=CHANNELS,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=SIDE,
            patch_size=SIDE // GRID,
            window_size=3,
            global_attn_indexes=[1],
            mlp_ratio=2.0,
            mlp_dim=96,
            num_pos_feats=CHANNELS // 2,
        ),
        prompt_encoder_config=t.SamPromptEncoderConfig(
            hidden_size=CHANNELS,
            image_size=SIDE,
            patch_size=SIDE // GRID,
            image_embedding_size=GRID,
            mask_input_channels=16,
        ),
        mask_decoder_config=t.SamMaskDecoderConfig(
            hidden_size=CHANNELS,
            mlp_dim=64,
            num_attention_heads=4,
            iou_head_hidden_dim=24,
            num_hidden_layers=2,
        ),
    )
    model = t.SamModel(config).eval().requires_grad_(False)
    for tensor in model.parameters():  # some begin as zeros, which would hide a wrong name
        tensor.copy_(torch.randn_like(tensor) * 0.2)
    embedding = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.copy_(embedding)
    return model


@pytest.fixture
def folder(theirs, tmp_path, monkeypatch):
    """The model as a folder of Hugging Face; ``vit_b`` has its sizes."""
    theirs.save_pretrained(tmp_path / "sam-vit-tiny")
    monkeypatch.setitem(sam_model_registry, "vit_b", tiny_official)
    return tmp_path / "sam-vit-tiny"


@pytest.mark.parametrize("part", ["folder", "file"])
def test_masks_equal_those_of_transformers(theirs, folder, part):
    checkpoint = folder if part == "folder" else folder / "model.safetensors"
    sam = load_sam(SamConfig(model="vit_b", checkpoint=str(checkpoint)))
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    embedding = sam_ops.encode(sam, image)
    pixels = sam.preprocess(torch.as_tensor(image).permute(2, 0, 1)[None].float())
    expected = theirs.get_image_embeddings(pixels)
    torch.testing.assert_close(embedding, expected, atol=ATOL, rtol=1e-4)

    size = (SIDE, SIDE)
    points = torch.tensor([[10.0, 12.0], [40.0, 50.0]], dtype=torch.float64)
    logits, ious = sam_ops.decode(sam, embedding, size, points=points, multimask=True)
    answer = theirs(
        image_embeddings=expected,
        input_points=points.float()[None, :, None],
        multimask_output=True,
    )
    torch.testing.assert_close(logits, answer.pred_masks[0], atol=ATOL, rtol=1e-4)
    torch.testing.assert_close(ious, answer.iou_scores[0], atol=ATOL, rtol=1e-4)
    assert (logits > 0).any()
    assert torch.equal(logits > 0, answer.pred_masks[0] > 0)

    boxes = torch.tensor([[5.0, 6.0, 30.0, 40.0]], dtype=torch.float64)
    logits, ious = sam_ops.decode(sam, embedding, size, boxes=boxes, multimask=False)
    answer = theirs(
        image_embeddings=expected, input_boxes=boxes.float()[None], multimask_output=False
    )
    torch.testing.assert_close(logits, answer.pred_masks[0], atol=ATOL, rtol=1e-4)
    torch.testing.assert_close(ious, answer.iou_scores[0], atol=ATOL, rtol=1e-4)


def test_names_go_there_and_back(theirs):
    state = theirs.state_dict()
    official = hugging_face.to_official(state)
    assert set(official) == set(tiny_official().state_dict())
    again = hugging_face.to_hugging_face(official, state)
    assert list(again) == list(state)
    for name, tensor in state.items():
        assert torch.equal(again[name], tensor), name


def test_a_file_of_another_size_is_refused(folder, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="is not a checkpoint of vit_b"):
        sam_models.check(SamConfig(model="vit_b", checkpoint=str(folder)))


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        sam_models.check(SamConfig(model="vit_b", checkpoint=str(tmp_path)))


def test_the_digest_of_a_folder_is_that_of_its_weights(folder):
    path = sam_models.check(SamConfig(model="vit_b", checkpoint=str(folder)))
    assert path == folder / "model.safetensors"
    with pytest.raises(WeightsError, match="its sha256 is"):
        load_sam(SamConfig(model="vit_b", checkpoint=str(folder), sha256="0" * 64))
    state = load_file(path)
    save_file(hugging_face.to_official(state), folder.parent / "official.safetensors")
    official = load_sam(
        SamConfig(model="vit_b", checkpoint=str(folder.parent / "official.safetensors"))
    )
    ours = load_sam(SamConfig(model="vit_b", checkpoint=str(folder)))
    for name, tensor in ours.state_dict().items():
        np.testing.assert_array_equal(tensor, official.state_dict()[name])
