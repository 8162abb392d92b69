"""The bundled SAM: a small image encoder under the official prompt encoder and mask decoder.

Prompt encoder, mask decoder and `Sam` are those of ``segment_anything``, unchanged. Its automatic
mask generator and its predictor run on this model as on ViT-B to ViT-H. The encoder is new:
convolutions down to a 16x16 grid (patches of 16 would lose edges), then transformer blocks of
``segment_anything`` with global attention and relative positions.

    256 px -> 128 (16 channels) -> 64 (32) -> 32 (64) -> 16 (128) -> 4 blocks -> 16x16x96
                                      |_________|__ folded into the embedding ______^
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn

from salip_ray.errors import WeightsError
from salip_ray.models.bundled import SAM_WEIGHTS

IMAGE_SIZE = 256  #: side of the encoder's input, pixels
GRID = 16  #: side of the embedding; the decoder's masks are 4 * GRID wide
EMBED_DIM = 96
WEIGHTS = SAM_WEIGHTS

_STEM = (16, 32, 64, 128)


def _halve(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a 3x3 convolution of stride 2 with group norm, which is independent of the batch."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(channels_out // 16, channels_out),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions and an identity connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(channels // 16, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(channels // 16, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        out: Tensor = x + self.body(x)
        return out


class SmallImageEncoder(nn.Module):
    """[B, 3, 256, 256], normalised and padded as `Sam.preprocess` does -> [B, 96, 16, 16].

    It has what `Sam`, `SamPredictor` and `SamAutomaticMaskGenerator` need of an encoder: `img_size`
    and `forward`.
    """

    def __init__(self, *, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.img_size = IMAGE_SIZE
        self.to_64 = nn.Sequential(_halve(3, _STEM[0]), _halve(_STEM[0], _STEM[1]))
        self.to_32 = nn.Sequential(_halve(_STEM[1], _STEM[2]), Residual(_STEM[2]))
        self.to_16 = nn.Sequential(_halve(_STEM[2], _STEM[3]), Residual(_STEM[3]))
        self.pos_embed = nn.Parameter(torch.zeros(1, GRID, GRID, _STEM[3]))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.Sequential(
            *(
                Block(_STEM[3], heads, use_rel_pos=True, input_size=(GRID, GRID))
                for _ in range(depth)
            )
        )
        self.project = nn.Conv2d(_STEM[3], EMBED_DIM, 1, bias=False)
        self.fold_64 = nn.Conv2d(_STEM[1], EMBED_DIM, 4, stride=4, bias=False)
        self.fold_32 = nn.Conv2d(_STEM[2], EMBED_DIM, 2, stride=2, bias=False)
        self.neck = nn.Sequential(
            LayerNorm2d(EMBED_DIM),
            nn.Conv2d(EMBED_DIM, EMBED_DIM, 3, padding=1, bias=False),
            LayerNorm2d(EMBED_DIM),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, 3, 256, 256] to embeddings [B, 96, 16, 16]."""
        return self.features(x)[-1]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the features at 128 (16 channels), 64 (32), 32 (64) and 16 px (the embedding)."""
        at_128: Tensor = self.to_64[0](x)
        at_64: Tensor = self.to_64[1](at_128)
        at_32: Tensor = self.to_32(at_64)
        tokens = self.to_16(at_32).permute(0, 2, 3, 1) + self.pos_embed
        tokens = self.blocks(tokens)
        embedding = self.project(tokens.permute(0, 3, 1, 2))
        out: Tensor = self.neck(embedding + self.fold_32(at_32) + self.fold_64(at_64))
        return at_128, at_64, at_32, out


def build_bundled_sam() -> Sam:
    """Return the bundled SAM with random weights: about 2 M parameters, 256x256 input."""
    return Sam(
        image_encoder=SmallImageEncoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=EMBED_DIM,
            image_embedding_size=(GRID, GRID),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=EMBED_DIM, mlp_dim=512, num_heads=8
            ),
            transformer_dim=EMBED_DIM,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )


def load_bundled_sam(path: Path | None = None) -> Sam:
    """Return the bundled SAM in eval mode, float32 on the CPU.

    Args:
        path: safetensors file (float16 or float32); the shipped weights if None.

    Raises:
        WeightsError: the file is missing, is not safetensors, or fits another network.
    """
    path = WEIGHTS if path is None else Path(path)
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"bundled SAM weights {path}: no such file") from None
    except SafetensorError as error:
        raise WeightsError(f"bundled SAM weights {path}: not a safetensors file: {error}") from None
    sam = build_bundled_sam()
    try:
        sam.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise WeightsError(
            f"bundled SAM weights {path}: made for another network: {error}"
        ) from None
    return sam.eval()
