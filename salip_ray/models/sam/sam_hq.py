"""SAM-HQ: SAM v1 with one more output token and features of an early layer, for finer outlines.

The official files of SAM-HQ (``sam_hq_vit_b.pth``, ``_l``, ``_h``) and those of Hugging Face
(``syscv-community/sam-hq-vit-*``) are run by the fast encoder and decoder of this package. As in
the official generator, each point gives one mask: the best of three, to whose logits those of the
additional token are added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from salip_ray.errors import ConfigError, WeightsError
from salip_ray.models.sam.decoder import Decoded, QuickMaskDecoder
from salip_ray.models.sam.encoder import quicken_blocks
from salip_ray.models.sam.load import read_state, require_fit
from salip_ray.wording import one_line

if TYPE_CHECKING:
    from salip_ray.cascade.interfaces import ModelContext

_MEAN, _STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
_SAFETENSORS = "model.safetensors"  # Hugging Face's name

Features = Mapping[str, Tensor]  #: ``image`` [1, C, h, w] and ``fine`` [1, C / 8, 4h, 4w]


@dataclass(frozen=True)
class Shape:
    """The sizes of a SAM-HQ that its tensors do not tell.

    Attributes:
        heads: of the image encoder's attention.
        whole: indices of the blocks that attend to the whole image.
        side: of the input in pixels.
        window: of the other blocks.
    """

    heads: int
    whole: tuple[int, ...]
    side: int = 1024
    window: int = 14


#: By the width of the image encoder.
_OFFICIAL = {
    768: Shape(12, (2, 5, 8, 11)),
    1024: Shape(16, (5, 11, 17, 23)),
    1280: Shape(16, (7, 15, 23, 31)),
}


class HqMaskDecoder(QuickMaskDecoder):
    """The mask decoder of SAM-HQ, under the official names of its parameters.

    Args:
        decoder: SAM's, with the modules that SAM-HQ shares with it.
        vit_dim: width of the image encoder.
    """

    def __init__(self, decoder: MaskDecoder, vit_dim: int) -> None:
        super().__init__(decoder)
        dim = decoder.transformer_dim
        self.hf_token = nn.Embedding(1, dim)
        self.hf_mlp = MLP(dim, dim, dim // 8, 3)
        self.compress_vit_feat = _four_times(vit_dim, dim, dim // 8)
        self.embedding_encoder = _four_times(dim, dim // 4, dim // 8)
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, 3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, 3, padding=1),
        )

    def features(self, image: Tensor, early: Tensor) -> Tensor:
        """Return the fine features of images [n, C, h, w] and of an early layer [n, h, w, D]."""
        fine: Tensor = self.compress_vit_feat(early.permute(0, 3, 1, 2))
        return fine + self.embedding_encoder(image)  # type: ignore[no-any-return]

    def decode(
        self,
        features: Features,
        image_pe: Tensor,
        prompt: tuple[Tensor, Tensor],
        *,
        multimask: bool,
        threshold: float | None = None,
    ) -> Decoded:
        """Return one mask per prompt, without those of a low predicted IoU.

        Args:
            features: of the image.
            image_pe: positional encoding of its pixels.
            prompt: sparse and dense embeddings of n prompts.
            multimask: take the best of three masks.
            threshold: exclusive; None to return all.
        """
        first, last = (1, self.num_mask_tokens) if multimask else (0, 1)
        image = features["image"].to(image_pe.device)
        fine = features["fine"].to(image_pe.device, self.iou_token.weight.dtype)
        masks = partial(self._hq_masks, fine)
        return self._decode(image, image_pe, *prompt, first, last, threshold, masks)

    def _output_tokens(self) -> Tensor:
        return torch.cat([super()._output_tokens(), self.hf_token.weight])

    def _chosen(self, iou: Tensor, threshold: float | None) -> Tensor:
        best = torch.zeros_like(iou, dtype=torch.bool)
        best.scatter_(1, iou.argmax(dim=1, keepdim=True), value=True)
        return best & super()._chosen(iou, threshold)

    def _hq_masks(
        self,
        features: Tensor,
        hidden: Tensor,
        pixels: Tensor,
        prompt: Tensor,
        mask: Tensor,
        height: int,
        width: int,
    ) -> Tensor:
        """Return the logits of SAM's masks, and of the additional token, added."""
        logits = self._masks(hidden, pixels, prompt, mask, height, width)
        if not len(prompt):  # convolutions of no image are not defined on every device
            return logits
        planes = self._upscaled(pixels[prompt]).view(len(prompt), height, width, 2, 2, 2, 2, -1)
        planes = planes.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(
            len(prompt), -1, 4 * height, 4 * width
        )
        kernels = self.hf_mlp(hidden[prompt, self.num_mask_tokens])
        fine = self.embedding_maskfeature(planes) + features
        return logits + torch.einsum("nc,nchw->nhw", kernels, fine)


def _four_times(channels: int, middle: int, out: int) -> nn.Sequential:
    """Return two transposed convolutions, which enlarge by 4."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, middle, kernel_size=2, stride=2),
        LayerNorm2d(middle),
        nn.GELU(),
        nn.ConvTranspose2d(middle, out, kernel_size=2, stride=2),
    )


def build(state: Mapping[str, Tensor], shape: Shape) -> Sam:
    """Return a SAM with the decoder of SAM-HQ and the sizes of a state dict, without its values."""
    tokens, vit_dim = (
        state["image_encoder.pos_embed"].shape[1],
        state["image_encoder.pos_embed"].shape[-1],
    )
    dim = state["mask_decoder.iou_token.weight"].shape[1]
    depth = sum(
        name.endswith(".norm1.weight") and "image_encoder.blocks." in name for name in state
    )
    decoder = MaskDecoder(
        num_multimask_outputs=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        transformer=TwoWayTransformer(
            depth=2,
            embedding_dim=dim,
            mlp_dim=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
            num_heads=8,
        ),
        transformer_dim=dim,
        iou_head_depth=3,
        iou_head_hidden_dim=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
    )
    sam = Sam(
        image_encoder=ImageEncoderViT(
            depth=depth,
            embed_dim=vit_dim,
            img_size=shape.side,
            mlp_ratio=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / vit_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=shape.heads,
            patch_size=shape.side // tokens,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=shape.whole,
            window_size=shape.window,
            out_chans=dim,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(tokens, tokens),
            input_image_size=(shape.side, shape.side),
            mask_in_chans=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        ),
        mask_decoder=decoder,
        pixel_mean=_MEAN,
        pixel_std=_STD,
    )
    sam.mask_decoder = HqMaskDecoder(decoder, vit_dim)
    return sam


def load_sam_hq(context: ModelContext, role: str, *, encoder: bool = True) -> Sam:
    """Load ``weights.model``: a file, or a folder of Hugging Face.

    With the precision ``fast``, encoder and decoder run in bfloat16, and prompts stay in float32.

    Args:
        context: of the factory.
        role: ``propose`` or ``refine``, for messages.
        encoder: keep the blocks of the image encoder, which have most of the weights.

    Raises:
        ConfigError: no weights are named.
        WeightsError: they are not those of a SAM-HQ.
    """
    if "model" not in context.weights:
        raise ConfigError(
            f"{role}.weights needs model: sam_hq_vit_b.pth (or _l, _h), or "
            "hf-hub:syscv-community/sam-hq-vit-base"
        )
    path = Path(context.weights["model"])
    file = path / _SAFETENSORS if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"{role}.weights.model {path} has no {_SAFETENSORS}")
    state = read_state(file, "SAM-HQ")
    missing = {"image_encoder.pos_embed", "mask_decoder.hf_token.weight"} - state.keys()
    if missing:
        raise WeightsError(
            f"{role}.weights.model {path} is not a SAM-HQ: it has no {min(missing)} "
            "(for an ordinary SAM, use the family sam)"
        )
    try:
        sam = build(state, _shape(path, state["image_encoder.pos_embed"].shape[-1]))
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise WeightsError(
            f"{role}.weights.model {path} is not a whole SAM-HQ ({reason}): fetch it again"
        ) from error
    require_fit(sam, state, "SAM-HQ", path)
    sam.load_state_dict(state)
    if not encoder:
        sam.image_encoder.blocks = nn.ModuleList()
    quicken_blocks(sam.image_encoder)
    if context.precision == "fast":
        sam.image_encoder.to(torch.bfloat16)
        sam.mask_decoder.to(torch.bfloat16)
    return sam.eval().requires_grad_(False).to(context.device)


def _shape(path: Path, width: int) -> Shape:
    """Return the sizes in the folder's configuration, or of the official model of this width."""
    file = path / "config.json"
    if file.is_file():
        vision: dict[str, Any] = json.loads(file.read_text())["vision_config"]
        return Shape(
            vision["num_attention_heads"],
            tuple(vision["global_attn_indexes"]),
            vision["image_size"],
            vision["window_size"],
        )
    if width not in _OFFICIAL:
        raise WeightsError(
            f"{path} has an image encoder of width {width}: SAM-HQ has "
            f"{', '.join(map(str, _OFFICIAL))} (vit_b, vit_l, vit_h)"
        )
    return _OFFICIAL[width]
