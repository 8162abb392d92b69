"""A student's network: the image encoder of the bundled SAM, followed by a small decoder.

The encoder halves the image of 256 pixels four times. The decoder doubles the embedding three times
and joins it each time with the encoder's features of that size; its logits are resized to 256:

    256 px -> 128 (16 channels) -> 64 (32) -> 32 (64) -> 16 (the embedding, 96)
               v                   v          v          |
    256 px <- 128 <-------------- 64 <------ 32 <--------'
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

    Images have mean 0 and standard deviation 1, as for the U-Net, which is close to SAM's own
    normalisation.

    Args:
        n_classes: number of classes without the background.
        width: channels of the decoder at 128 px; each lower resolution has twice as many.
        pretrained: start with the weights of the bundled SAM's encoder.

    Attributes:
        pretrained: the encoder, which a training changes at a tenth of its rate.
    """

    def __init__(self, n_classes: int, width: int, *, pretrained: bool = False) -> None:
        super().__init__()
        sam = load_bundled_sam() if pretrained else build_bundled_sam()
        self.pretrained = sam.image_encoder
        inner, steps = _OF_SAM[0], []
        for level, joined in zip((2, 1, 0), _OF_SAM[1:], strict=True):
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
