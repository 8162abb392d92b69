"""SAM in three moves: encode an image, decode prompts on its embedding, upscale the logits.

The same computations as ``segment_anything.SamPredictor``, apart from its state, so that one
embedding serves the proposals and the box prompts.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from salip_ray.errors import ImageError
from salip_ray.rows import Image

Size = tuple[int, int]  #: height, width


def input_size(sam: Sam, size: Size) -> Size:
    """Size of an image of ``size`` once SAM has resized it, before padding.

    Raises:
        ImageError: the image is so long and thin that its short side vanishes.
    """
    height, width = ResizeLongestSide.get_preprocess_shape(*size, sam.image_encoder.img_size)
    if min(height, width) < 1:
        raise ImageError(
            f"an image of {size[1]} x {size[0]} pixels is too elongated for SAM, which sees "
            f"{sam.image_encoder.img_size} x {sam.image_encoder.img_size}"
        )
    return height, width


@torch.no_grad()
def encode(sam: Sam, image: Image) -> Tensor:
    """Embed an image: uint8 RGB [H, W, 3] -> float32 [1, C, h, w] on SAM's device."""
    input_size(sam, image.shape[:2])
    resized = ResizeLongestSide(sam.image_encoder.img_size).apply_image(image)
    pixels = torch.as_tensor(resized, device=sam.device).permute(2, 0, 1).contiguous()[None]
    embedding: Tensor = sam.image_encoder(sam.preprocess(pixels))
    return embedding


@torch.no_grad()
def decode(
    sam: Sam,
    embedding: Tensor,
    size: Size,
    *,
    points: Tensor | None = None,
    boxes: Tensor | None = None,
    multimask: bool,
) -> tuple[Tensor, Tensor]:
    """Predict masks for n prompts, each a foreground point or a box.

    Args:
        sam: the model.
        embedding: [1, C, h, w], of the image the prompts lie on.
        size: height, width of that image.
        points: [n, 2] xy in its pixels.
        boxes: [n, 4] xyxy in its pixels, inclusive.
        multimask: predict three masks a prompt instead of one.

    Returns:
        Low-resolution logits [n, m, 4h, 4w] and predicted IoUs [n, m], m being 3 or 1.
    """
    transform = ResizeLongestSide(sam.image_encoder.img_size)
    prompt: tuple[Tensor, Tensor] | None = None
    if points is not None:
        # In float64 up to here: the official generator scales its grid in NumPy.
        coords = torch.as_tensor(transform.apply_coords(points.numpy(), size), device=sam.device)
        labels = torch.ones(len(coords), dtype=torch.int, device=sam.device)
        prompt = coords[:, None, :], labels[:, None]
    if boxes is not None:
        scaled = transform.apply_boxes(boxes.numpy(), size)
        boxes = torch.as_tensor(scaled, dtype=torch.float, device=sam.device)
    sparse, dense = sam.prompt_encoder(points=prompt, boxes=boxes, masks=None)
    logits, predicted_iou = sam.mask_decoder(
        image_embeddings=embedding.to(sam.device),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
    return logits, predicted_iou


@torch.no_grad()
def upscale(sam: Sam, logits: Tensor, size: Size, output_size: Size) -> Tensor:
    """Logits [n, h, w] of an image of ``size`` -> [n, H, W] at ``output_size``.

    SAM's own ``postprocess_masks``: to its input square, the padding cut off, to the output.
    """
    upscaled: Tensor = sam.postprocess_masks(logits[None], input_size(sam, size), output_size)
    return upscaled[0]


def stability_score(logits: Tensor, threshold: float, offset: float) -> Tensor:
    """IoU of the masks [n, H, W] cut at ``threshold + offset`` and ``threshold - offset``.

    NaN where both are empty. As the official ``calculate_stability_score``, but for any width.
    """
    inner = (logits > threshold + offset).flatten(1).sum(1)
    outer = (logits > threshold - offset).flatten(1).sum(1)
    return inner / outer
