"""SAM-Med2D: SAM v1 at 256 pixels with adapters in its encoder (``sam.model: sam_med2d``).

Cheng et al., SAM-Med2D, 2023. The official file is ``sam-med2d_b.pth``, a training checkpoint whose
state dict is under ``model``. Its authors stretch an image to 256 x 256 pixels; here it is scaled
and padded, as for every SAM, so results are theirs for square images.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from segment_anything.modeling import ImageEncoderViT, Sam
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn

from salip_ray.models.sam.encoder import QuickBlock
from salip_ray.models.sam.parts import CHANNELS, STRIDE, with_decoder

_SQUEEZE = 4  # by which the adapter narrows the channels


class Adapter(nn.Module):
    """Weigh the channels of a block's tokens by their means, and convolve them over the grid.

    Args:
        width: channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.channel = nn.Sequential(
            nn.Linear(width, width // _SQUEEZE, bias=False),
            nn.ReLU(),
            nn.Linear(width // _SQUEEZE, width, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Adapt tokens [B, H, W, C]; return the same shape."""
        weighed = tokens * self.channel(tokens.mean(dim=(1, 2)))[:, None, None]
        convolved = self.spatial(weighed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        adapted: Tensor = self.norm(tokens + convolved)
        return adapted


class AdaptedBlock(QuickBlock):
    """A block of SAM's encoder whose adapter runs next to its MLP."""

    def __init__(self, block: Block) -> None:
        super().__init__(block)
        self.Adapter = Adapter(block.norm1.normalized_shape[0])  # the official name

    def forward(self, x: Tensor) -> Tensor:
        """Encode tokens [B, H, W, C]; return the same shape."""
        x = x + self._attend(self.norm1(x))
        normalised = self.norm2(x)
        return x + self.mlp(normalised) + self.Adapter(normalised)  # type: ignore[no-any-return]


def build_sam_med2d(
    *, width: int = 768, depth: int = 12, heads: int = 12, every: int = 3, side: int = 256
) -> Sam:
    """Return a SAM-Med2D without trained weights; the defaults are those of ``sam-med2d_b.pth``.

    Args:
        width: channels of a token.
        depth: number of blocks.
        heads: of a block.
        every: so many blocks apart attention is global.
        side: of the input in pixels.
    """
    encoder = ImageEncoderViT(
        depth=depth,
        embed_dim=width,
        img_size=side,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=heads,
        patch_size=STRIDE,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=tuple(range(every - 1, depth, every)),
        window_size=14,
        out_chans=CHANNELS,
    )
    encoder.blocks = nn.ModuleList(AdaptedBlock(block) for block in encoder.blocks)
    return with_decoder(encoder)


def state_of(checkpoint: Any) -> Any:
    """Return the state dict of an official file, which also has the state of its optimiser."""
    return checkpoint.get("model", checkpoint) if isinstance(checkpoint, dict) else checkpoint
