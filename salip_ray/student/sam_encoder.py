"""A student's network on the image encoder of the bundled SAM, which has learnt from more images.

The encoder halves 256 pixels four times. A small decoder doubles its embedding again and joins it
with the encoder's features of each size:

    256 px -> 128 (16 channels) -> 64 (32) -> 32 (64) -> 16 (the embedding, 96)
               v                   v          v          v
    logits <- 128 <-------------- 64 <------ 32 <------- +
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from salip_ray.models.bundled.sam_net import IMAGE_SIZE, build_bundled_sam, load_bundled_sam
from salip_ray.student.unet import ResidualUnit

_OF_SAM = (96, 64, 32, 16)  # channels at 16, 32, 64 and 128 px


class SamEncoderNet(nn.Module):
    """From float [n, 3, 256, 256] to logits [n, 1 + n_classes, 256, 256].

    Args:
        n_classes: number of classes without the background.
        width: channels of the decoder at 128 px; each lower resolution has twice as many.
        pretrained: start with the weights of the bundled SAM's encoder.

    Attributes:
        pretrained: the encoder, which is trained at a lower rate.
    """

    def __init__(self, n_classes: int, width: int, *, pretrained: bool = False) -> None:
        super().__init__()
        sam = load_bundled_sam() if pretrained else build_bundled_sam()
        self.pretrained = sam.image_encoder
        inner, steps = _OF_SAM[0], []
        for level, joined in reversed(tuple(enumerate(reversed(_OF_SAM[1:])))):
            steps.append(ResidualUnit(inner + joined, width * 2**level))
            inner = width * 2**level
        self.up = nn.ModuleList(steps)
        self.head = nn.Conv2d(inner, 1 + n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each pixel."""
        *finer, inner = self.pretrained.features(x)
        for step, joined in zip(self.up, reversed(finer), strict=True):
            inner = F.interpolate(inner, scale_factor=2.0, mode="bilinear", align_corners=False)
            inner = step(torch.cat([inner, joined], dim=1))
        logits: Tensor = self.head(inner)
        return F.interpolate(
            logits, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False
        )
