"""The operations of SAM: encode an image, decode prompts on its embedding, upscale the logits.

The same computations as ``segment_anything.SamPredictor``, without its state, so that one embedding
serves proposals and box prompts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.errors import ImageError
from salip_ray.models.sam.decoder import Decoded, QuickMaskDecoder
from salip_ray.schema import Image, Size


def input_size(sam: Sam, size: Size) -> Size:
    """Return the size that SAM resizes an image of ``size`` to, before padding.

    Raises:
        ImageError: the short side would be less than 1 pixel.
    """
    height, width = ResizeLongestSide.get_preprocess_shape(*size, sam.image_encoder.img_size)
    if min(height, width) < 1:
        raise ImageError(
            f"an image of {size[1]} x {size[0]} pixels is too elongated for SAM, which sees "
            f"{sam.image_encoder.img_size} x {sam.image_encoder.img_size}"
        )
    return height, width


def encode(sam: Sam, image: Image) -> Tensor:
    """Embed an image: uint8 RGB [H, W, 3] -> float32 [1, C, h, w] on SAM's device."""
    return encode_views(sam, [image])


@torch.no_grad()
def encode_views(sam: Sam, views: Sequence[Image]) -> Tensor:
    """Embed several images in one batch: uint8 RGB [H, W, 3] each -> float32 [n, C, h, w]."""
    embeddings: Tensor = sam.image_encoder(pixels(sam, views))
    return embeddings.float()


def pixels(sam: Sam, views: Sequence[Image]) -> Tensor:
    """Return SAM's input for views, uint8 RGB [H, W, 3] each: resized, normalised and padded.

    Raises:
        ImageError: a view is too elongated.
    """
    resize = ResizeLongestSide(sam.image_encoder.img_size)
    inputs = []
    for view in views:
        input_size(sam, view.shape[:2])
        resized = torch.as_tensor(resize.apply_image(view), device=sam.device)
        inputs.append(sam.preprocess(resized.permute(2, 0, 1).contiguous()[None]))
    return torch.cat(inputs)


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
    sparse, dense = embed_prompts(sam, size, points, boxes)
    logits, predicted_iou = sam.mask_decoder(
        image_embeddings=embedding.to(sam.device),
        image_pe=_positions(sam),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
    return logits, predicted_iou


@torch.no_grad()
def decode_above(
    sam: Sam, embedding: Tensor, size: Size, *, points: Tensor, min_iou: float
) -> Decoded:
    """Predict three masks for each of n foreground points; drop those of low predicted IoU.

    Most masks are dropped here, so it happens before they are upscaled (the official generator
    drops them after that), and with our decoder even before they are made.

    Args:
        sam: the model.
        embedding: [1, C, h, w], of the image the points lie on.
        size: height, width of that image.
        points: [n, 2] xy in its pixels.
        min_iou: exclusive; with 0 no mask is dropped, not even one of a negative IoU.
    """
    if min_iou > 0 and isinstance(sam.mask_decoder, QuickMaskDecoder):
        sparse, dense = embed_prompts(sam, size, points, None)
        return sam.mask_decoder.above(
            embedding.to(sam.device), _positions(sam), sparse, dense, min_iou
        )
    logits, ious = decode(sam, embedding, size, points=points, multimask=True)
    keep = ious > min_iou if min_iou > 0 else torch.ones_like(ious, dtype=torch.bool)
    return Decoded(logits[keep], ious[keep], keep.nonzero(as_tuple=True)[0])


def embed_prompts(
    sam: Sam, size: Size, points: Tensor | None, boxes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return sparse and dense embeddings in float32: half precision would move points by pixels."""
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
    embedded: tuple[Tensor, Tensor] = sam.prompt_encoder(points=prompt, boxes=boxes, masks=None)
    return embedded


def _positions(sam: Sam) -> Tensor:
    """Return the positional encoding of the embedding's pixels."""
    encoding: Tensor = sam.prompt_encoder.get_dense_pe()
    return encoding


@torch.no_grad()
def upscale(sam: Sam, logits: Tensor, size: Size, output_size: Size) -> Tensor:
    """Resize low-resolution logits [n, h, w] of an image of ``size`` to [n, H, W].

    SAM's ``postprocess_masks`` resizes to its input square, removes the padding, and resizes to the
    output. If the last step changes the size, the three are computed as one linear map of the rows
    and one of the columns.

    Args:
        sam: the model.
        logits: [n, h, w].
        size: height, width of the image that was encoded.
        output_size: height, width to return.
    """
    square, low_res = int(sam.image_encoder.img_size), (logits.shape[-2], logits.shape[-1])
    height, width = input_size(sam, size)
    if (height, width) == output_size:
        full = F.interpolate(
            logits[None].float(), (square, square), mode="bilinear", align_corners=False
        )[0]
        return full[:, :height, :width]
    rows = _resize_matrix(low_res[0], square, height, output_size[0]).to(logits.device)
    columns = _resize_matrix(low_res[1], square, width, output_size[1]).to(logits.device)
    return rows @ logits.float() @ columns.T


@functools.lru_cache(maxsize=256)
def _resize_matrix(low_res: int, square: int, unpadded: int, output: int) -> Tensor:
    """Return ``postprocess_masks`` along one axis as a matrix [output, low_res]."""
    unit = torch.eye(low_res, dtype=torch.float64)[None]
    full = F.interpolate(unit, square, mode="linear", align_corners=False)[..., :unpadded]
    resized = F.interpolate(full, output, mode="linear", align_corners=False)
    return resized[0].T.float().contiguous()


def stability_score(logits: Tensor, threshold: float, offset: float) -> Tensor:
    """Return the IoU [n] of the masks at ``threshold + offset`` and ``threshold - offset``.

    NaN if both are empty. Equal to the official ``calculate_stability_score``, which fails for
    some widths.

    Args:
        logits: [n, H, W].
        threshold: of the mask.
        offset: of the two masks that are compared.
    """
    inner, outer = above(logits, threshold + offset), above(logits, threshold - offset)
    return count(inner) / count(outer)


def above(logits: Tensor, threshold: float) -> Tensor:
    """Return bool masks of the logits (float32) above a threshold."""
    if logits.device.type != "cpu":
        return logits > threshold
    return torch.from_numpy(logits.numpy() > np.float32(threshold))  # 5 times as fast as torch


def count(masks: Tensor) -> Tensor:
    """Return the number of pixels of each bool mask [n, H, W], int64 [n]."""
    if masks.device.type != "cpu":
        return masks.flatten(1).sum(1)
    # NumPy counts bytes with vector instructions; torch converts each to 64 bits first.
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)
