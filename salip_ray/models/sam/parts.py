"""What SAM v1 and models with another image encoder share: prompt encoder and mask decoder."""

from __future__ import annotations

from typing import Any

from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

STRIDE = 16  #: pixels of the input per cell of the embedding
CHANNELS = 256  #: of the embedding
_MEAN, _STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def with_decoder(encoder: Any) -> Sam:
    """Return a SAM with this image encoder, and SAM's prompt encoder and mask decoder, untrained.

    Args:
        encoder: takes [n, 3, S, S] and returns [n, 256, S / 16, S / 16]; ``img_size`` is S.
    """
    side: int = encoder.img_size
    grid = side // STRIDE
    return Sam(
        image_encoder=encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=CHANNELS, mlp_dim=2048, num_heads=8
            ),
            transformer_dim=CHANNELS,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=_MEAN,
        pixel_std=_STD,
    )
