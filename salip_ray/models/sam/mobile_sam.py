"""MobileSAM: SAM v1 with TinyViT as image encoder (``sam.model: vit_t``).

Prompt encoder and mask decoder are SAM's. The encoder is that of ``timm`` with the neck of SAM; its
last stage keeps the grid of 64 x 64. The official file is ``mobile_sam.pt``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from salip_ray.models.sam.parts import CHANNELS, with_decoder

_ENCODER = "image_encoder."
#: Parts of names: the official ones, and timm's.
_PAIRS = (
    ("patch_embed.seq.0.", "patch_embed.conv1."),
    ("patch_embed.seq.2.", "patch_embed.conv2."),
    (".c.", ".conv."),
)
_LAYER = re.compile(r"^layers\.(\d+)\.(downsample)?")


class TinyViTEncoder(nn.Module):
    """TinyViT 5M and the neck of SAM.

    Args:
        img_size: side of the input in pixels.
        widths: channels of the four stages; the defaults are those of MobileSAM.
        depths: blocks of the four stages.
    """

    def __init__(
        self,
        img_size: int = 1024,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
    ) -> None:
        super().__init__()
        from timm.models.tiny_vit import TinyVit

        self.img_size = img_size
        net: Any = TinyVit(
            embed_dims=tuple(widths),
            depths=tuple(depths),
            num_heads=tuple(width // 32 for width in widths),
            window_sizes=(7, 7, 14, 7),
            drop_path_rate=0.0,
        )
        net.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.patch_embed, self.stages = net.patch_embed, net.stages
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], CHANNELS, kernel_size=1, bias=False),
            LayerNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(CHANNELS),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed images [n, 3, S, S]; return [n, 256, S / 16, S / 16]."""
        embeddings: Tensor = self.neck(self.stages(self.patch_embed(pixels)))
        return embeddings


def build_mobile_sam(**sizes: Any) -> Sam:
    """Return a MobileSAM without trained weights.

    Args:
        sizes: arguments of :class:`TinyViTEncoder`, for a smaller one.
    """
    return with_decoder(TinyViTEncoder(**sizes))


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official state dict under the names of :func:`build_mobile_sam`.

    The official encoder holds a classifier that SAM does not use; it is left out.
    """
    unused = tuple(f"{_ENCODER}{name}." for name in ("norm_head", "head"))
    return {_name(name): value for name, value in state.items() if not name.startswith(unused)}


def _name(name: str) -> str:
    if not name.startswith(_ENCODER) or name.startswith(f"{_ENCODER}neck."):
        return name
    short = name.removeprefix(_ENCODER)
    if match := _LAYER.match(short):
        # timm's stages begin with the downsampling that ends the official layer before.
        stage = int(match[1]) + (match[2] is not None)
        short = f"stages.{stage}.{short[match.end(1) + 1 :]}"
    for official, timm in _PAIRS:
        short = short.replace(official, timm)
    return f"{_ENCODER}{short}"
