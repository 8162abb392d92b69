"""A SAM and a CLIP small enough for tests, with random weights, and images for them."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, PromptEncoder, Sam
from torch import nn
from torch.nn import functional as F

from salip_ray.cascade.cascade import Cascade
from salip_ray.config import Config, SamConfig
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.clip.load import ClipModel
from salip_ray.models.sam.load import load_sam
from salip_ray.schema import Candidate

GRID, CHANNELS, SIDE = 16, 32, 128
TASK = {"prompts": {"lung": ["a lobe"], "heart": ["a blob", "a ball"]}, "top_k": {"lung": 2}}
ALL = ["cascade", "unprompted", "gt_sam"]


def of(result, method):
    return {mask.label: mask for mask in result.masks if mask.method == method}


def part(number, columns, predicted_iou, height=40, width=60):
    mask = np.zeros((height, width), dtype=bool)
    mask[5:15, columns] = True
    return Candidate(
        number, mask, int(mask.sum()), (0, 0, 1, 1), predicted_iou, 0.8, (0, 0), (0, 0, 1, 1)
    )


class BlobDecoder(nn.Module):
    """Stands in for SAM's mask decoder: ragged blobs of four sizes round the prompt.

    Random weights of the real decoder give masks over the whole image, which exercise neither NMS
    nor the filters. A prompt's embedding is most like the positional encoding where it lies, so
    their product peaks there; the image embedding frays the outline.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(CHANNELS, 4, 1)
        self.register_buffer("levels", torch.tensor([0.3, 0.6, 0.45, 0.3]))

    def forward(self, image_embeddings, image_pe, sparse_prompt_embeddings, multimask_output, **_):
        prompt = sparse_prompt_embeddings.mean(1)
        near = torch.einsum("nc,chw->nhw", prompt, image_pe[0]) * 4 / CHANNELS
        texture = torch.tanh(self.mix(image_embeddings))
        logits = 40 * (near[:, None] + 0.15 * texture - self.levels[:, None, None])
        inside = logits.sigmoid()
        ious = 0.8 + 0.2 * torch.tanh((inside * texture).sum((2, 3)) / inside.sum((2, 3)))
        logits = F.interpolate(logits, scale_factor=4, mode="bilinear")
        outputs = slice(1, None) if multimask_output else slice(0, 1)
        return logits[:, outputs], ious[:, outputs]


def tiny_sam(seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=SIDE,
            patch_size=SIDE // GRID,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=CHANNELS,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(GRID, GRID),
            input_image_size=(SIDE, SIDE),
            mask_in_chans=4,
        ),
        mask_decoder=BlobDecoder(),
    )
    # A point's embedding is then its place alone, which the decoder looks for.
    for kind in [*sam.prompt_encoder.point_embeddings, sam.prompt_encoder.not_a_point_embed]:
        nn.init.zeros_(kind.weight)
    return sam.eval().requires_grad_(False)


def tiny_clip(seed: int = 0) -> ClipModel:
    torch.manual_seed(seed)
    model = open_clip.CLIP(
        16,
        vision_cfg={"layers": 1, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 8},
        text_cfg={"width": 16, "heads": 2, "layers": 1},
    )
    return ClipModel(
        model.eval().requires_grad_(False),
        open_clip.image_transform(32, is_train=False),
        open_clip.SimpleTokenizer(),
        torch.device("cpu"),
    )


@pytest.fixture(scope="session")
def sam() -> Sam:
    return tiny_sam()


@pytest.fixture(scope="session")
def other_sam() -> Sam:
    return tiny_sam(seed=1)


@pytest.fixture(scope="session")
def bundled_sam() -> Sam:
    return load_sam(SamConfig())


@pytest.fixture(scope="session")
def phantom():
    """A phantom that no model was trained on, uint8 RGB with a long side of 256."""
    return make_phantom("chest_xray", 0, bank="tune").image


@pytest.fixture(scope="session")
def clip() -> ClipModel:
    return tiny_clip()


@pytest.fixture(scope="session")
def picture():
    """``picture(height, width)``: a uint8 RGB image with structure at several scales."""

    def draw(height: int, width: int, seed: int = 0):
        random = np.random.default_rng(seed)
        noise = torch.zeros(1, 3, height, width)
        for cells in (3, 9, 27):
            coarse = torch.as_tensor(random.normal(size=(1, 3, cells, cells)), dtype=torch.float)
            noise += F.interpolate(coarse, (height, width), mode="bilinear") * 30
        return (128 + noise[0].permute(1, 2, 0).numpy()).clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture
def configure():
    """``configure(section={...})``: a configuration fit for the tiny models."""

    def build(**sections) -> Config:
        data = {
            "task": {"name": "test", "prompts": {"organ": ["a round organ", "a bright part"]}},
            "image": {"long_side": SIDE},
            "propose": {
                "points_per_side": 6,
                "pred_iou_thresh": 0.75,
                "stability_score_thresh": 0.5,
            },
        }
        for name, section in sections.items():
            data[name] = {**data.get(name, {}), **section}
        return Config.model_validate(data)

    return build


@pytest.fixture
def cascade(sam, clip, configure):
    return Cascade(configure(task=TASK, run={"modes": ALL}), sam=sam, clip=clip)


@pytest.fixture
def references():
    lung, heart = np.zeros((2, 180, 256), dtype=bool)
    lung[20:100, 20:80] = lung[30:110, 160:230] = heart[100:160, 100:150] = True
    return {"lung": lung, "heart": heart}
