"""The models that ``benchmarks.peers`` runs: one set of random weights in every package's form."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import families
from benchmarks.sam2_names import to_transformers
from salip_ray.models.sam.hugging_face import to_hugging_face

_DECISIVE = 40.0  # makes logits of random weights as large as those of trained ones


@dataclass(frozen=True)
class Shape:
    """Sizes of a SAM with a plain ViT.

    Attributes:
        side: of the input, pixels.
        patch: side of a patch, pixels.
        width, depth, heads: of the encoder.
        global_blocks: indices of the blocks without windows.
        window: side of a window, patches.
        channels: of the embedding and of the decoder.
        decoder_mlp: hidden units of the decoder's MLPs.
    """

    side: int = 1024
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    window: int = 14
    channels: int = 256
    decoder_mlp: int = 2048

    @property
    def grid(self) -> int:
        """Side of the embedding."""
        return self.side // self.patch


SHAPES = {
    "vit_b": Shape(),
    "tiny": Shape(128, 16, 48, 3, 3, (1,), 3, 32, 64),
}


def official_sam(package: str, shape: Shape, state: dict[str, Tensor] | None = None) -> Any:
    """Return the SAM of ``segment_anything``, or of a package with the same classes.

    Args:
        package: it has a module ``modeling``.
        shape: sizes.
        state: official weights; None for random ones.
    """
    net = importlib.import_module(f"{package}.modeling")
    sam = net.Sam(
        image_encoder=net.ImageEncoderViT(
            img_size=shape.side,
            patch_size=shape.patch,
            embed_dim=shape.width,
            depth=shape.depth,
            num_heads=shape.heads,
            mlp_ratio=4,
            out_chans=shape.channels,
            qkv_bias=True,
            use_rel_pos=True,
            window_size=shape.window,
            global_attn_indexes=shape.global_blocks,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        ),
        prompt_encoder=net.PromptEncoder(
            embed_dim=shape.channels,
            image_embedding_size=(shape.grid, shape.grid),
            input_image_size=(shape.side, shape.side),
            mask_in_chans=16,
        ),
        mask_decoder=net.MaskDecoder(
            num_multimask_outputs=3,
            transformer=net.TwoWayTransformer(
                depth=2, embedding_dim=shape.channels, mlp_dim=shape.decoder_mlp, num_heads=8
            ),
            transformer_dim=shape.channels,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    if state is not None:
        sam.load_state_dict(state)
    return sam.eval().requires_grad_(False)


def random_state(shape: Shape) -> dict[str, Tensor]:
    """Return seeded random weights of an official SAM; they cost what trained ones cost."""
    torch.manual_seed(0)
    sam = official_sam("segment_anything", shape)
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name or name.endswith("pos_embed"):
            nn.init.normal_(parameter, std=0.02)
    _make_decisive(sam.mask_decoder)
    return dict(sam.state_dict())


def transformers_sam(shape: Shape, state: dict[str, Tensor]) -> tuple[Any, Any]:
    """Return the SAM of ``transformers`` with official weights, and its image processor."""
    import transformers as t

    sizes = {"image_size": shape.side, "patch_size": shape.patch}
    config = t.SamConfig(
        vision_config=t.SamVisionConfig(
            **sizes,
            hidden_size=shape.width,
            output_channels=shape.channels,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            window_size=shape.window,
            global_attn_indexes=list(shape.global_blocks),
            mlp_dim=4 * shape.width,
            num_pos_feats=shape.channels // 2,
        ),
        prompt_encoder_config=t.SamPromptEncoderConfig(
            **sizes, hidden_size=shape.channels, image_embedding_size=shape.grid
        ),
        mask_decoder_config=t.SamMaskDecoderConfig(
            hidden_size=shape.channels, mlp_dim=shape.decoder_mlp
        ),
    )
    model = t.SamModel(config)
    model.load_state_dict(to_hugging_face(state, model.state_dict()))
    processor = t.SamImageProcessor(
        size={"longest_edge": shape.side}, pad_size={"height": shape.side, "width": shape.side}
    )
    return model.eval().requires_grad_(False), processor


def official_sam2() -> Any:
    """Return the SAM 2.1 tiny of the package ``sam2`` with seeded random weights."""
    torch.manual_seed(0)
    model = families.official_sam2().eval().requires_grad_(False)
    _make_decisive(model.sam_mask_decoder)
    return model


def transformers_sam2(state: dict[str, Tensor]) -> tuple[Any, Any]:
    """Return the SAM 2.1 tiny of ``transformers`` with the weights, and its image processor."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    model = Sam2Model(Sam2Config())
    model.load_state_dict(state)
    return model.eval().requires_grad_(False), Sam2ImageProcessor()


def random_state_sam2() -> dict[str, Tensor]:
    """Return the weights of :func:`official_sam2` under the names of ``transformers``."""
    return to_transformers(official_sam2().state_dict())


def _make_decisive(decoder: Any) -> None:
    decoder.iou_prediction_head.layers[-1].bias += 0.5
    for network in decoder.output_hypernetworks_mlps:
        network.layers[-1].weight *= _DECISIVE
