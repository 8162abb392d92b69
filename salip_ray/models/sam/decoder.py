"""SAM's mask decoder with the same weights and mathematics, in less time and memory.

All prompts of a batch are on one image, but the official decoder copies the image's 4,096 tokens
for every prompt and projects each copy. Here:

- the first layer, in which all copies are still equal, projects one of them;
- later layers project the few prompt tokens instead of the many image tokens: with heads
  :math:`h`, :math:`(X W_k)_h q_h = X (W_k^T)_h q_h`, and likewise for values and outputs;
- masks below a threshold of predicted IoU, which is known before the mask, are not made;
- upscaling runs on [pixels, channels] matrices and orders the pixels at the end;
- prompts are decoded in slices that fit into the CPU's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from salip_ray.models.sam.two_way import share, two_way

_SLICE_BYTES = 3 * 1024**2  # of image tokens, for the prompts of one slice


class Decoded(NamedTuple):
    """Masks of some prompts.

    Attributes:
        logits: low-resolution logits [m, 4h, 4w].
        predicted_iou: [m].
        prompt: index of the prompt of each, int64 [m].
    """

    logits: Tensor
    predicted_iou: Tensor
    prompt: Tensor


class QuickMaskDecoder(nn.Module):
    """Replaces a ``MaskDecoder``: faster for many prompts on one image.

    It shares the modules of ``decoder``, under the same names, and is called in the same way.
    """

    def __init__(self, decoder: MaskDecoder) -> None:
        super().__init__()
        self.transformer = decoder.transformer
        self.iou_token = decoder.iou_token
        self.mask_tokens = decoder.mask_tokens
        self.output_upscaling = decoder.output_upscaling
        self.output_hypernetworks_mlps = decoder.output_hypernetworks_mlps
        self.iou_prediction_head = decoder.iou_prediction_head
        self.num_mask_tokens: int = decoder.num_mask_tokens
        self._official = (decoder,)  # in a tuple, so that its modules are not registered twice

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return logits [n, m, 4h, 4w] and IoUs [n, m], like the official decoder; m is 3 or 1.

        Only the returned masks are computed.
        """
        if not _shared(image_embeddings, dense_prompt_embeddings):
            dtype = self.iou_token.weight.dtype
            logits, ious = self._official[0](
                image_embeddings.to(dtype),
                image_pe.to(dtype),
                sparse_prompt_embeddings.to(dtype),
                dense_prompt_embeddings.to(dtype),
                multimask_output,
            )
            return logits.float(), ious.float()
        prompts = len(sparse_prompt_embeddings)
        first, last = (1, self.num_mask_tokens) if multimask_output else (0, 1)
        decoded = self._decode(
            image_embeddings,
            image_pe,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
            first,
            last,
        )
        shape = prompts, last - first
        return decoded.logits.unflatten(0, shape), decoded.predicted_iou.view(shape)

    def above(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        threshold: float,
    ) -> Decoded:
        """Return the masks (of three per prompt) of a predicted IoU above ``threshold``."""
        return self._decode(
            image_embeddings,
            image_pe,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
            1,
            None,
            threshold,
        )

    def _decode(
        self,
        image: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        first: int,
        last: int | None,
        threshold: float | None = None,
        masks: Callable[[Tensor, Tensor, Tensor, Tensor, int, int], Tensor] | None = None,
    ) -> Decoded:
        masks = masks or self._masks
        height, width = image.shape[2:]
        dtype = self.iou_token.weight.dtype
        keys = (image + dense[:1]).to(dtype).flatten(2).transpose(1, 2).contiguous()
        key_pe = image_pe.to(dtype).flatten(2).transpose(1, 2).contiguous()
        shared = share(self.transformer, keys, key_pe)
        tokens = torch.cat(
            (self._output_tokens().expand(len(sparse), -1, -1), sparse.to(dtype)), dim=1
        )
        step = len(tokens)
        if keys.device.type == "cpu":
            # Slices of equal length: a short last slice takes nearly as long as a full one.
            slices = round(len(tokens) * keys[0].numel() * keys.element_size() / _SLICE_BYTES)
            step = math.ceil(len(tokens) / max(1, slices))
        logits, ious, prompts = [], [], []
        for start in range(0, len(tokens), step):
            hidden, pixels = two_way(self.transformer, shared, tokens[start : start + step])
            iou = self.iou_prediction_head(hidden[:, 0])[:, first:last]
            keep = self._chosen(iou, threshold)
            prompt, mask = keep.nonzero(as_tuple=True)
            logits.append(masks(hidden[:, 1:], pixels, prompt, mask + first, height, width))
            ious.append(iou[keep])
            prompts.append(prompt + start)
        return Decoded(torch.cat(logits).float(), torch.cat(ious).float(), torch.cat(prompts))

    def _output_tokens(self) -> Tensor:
        """Return the tokens of the outputs [n, C]: predicted IoU, then masks."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def _chosen(self, iou: Tensor, threshold: float | None) -> Tensor:
        """Return which masks to make, bool [n, m], by their predicted IoUs [n, m]."""
        return torch.ones_like(iou, dtype=torch.bool) if threshold is None else iou > threshold

    def _masks(
        self, hidden: Tensor, pixels: Tensor, prompt: Tensor, mask: Tensor, height: int, width: int
    ) -> Tensor:
        """Return logits [m, 4 * height, 4 * width] of (prompt, mask) pairs, in their order."""
        used, index = torch.unique(prompt, return_inverse=True)
        if len(used) < len(pixels):
            pixels, hidden = pixels[used], hidden[used]
        kernels = torch.stack(
            [
                network(hidden[:, token])
                for token, network in enumerate(self.output_hypernetworks_mlps)
            ],
            dim=1,
        )
        fine = self._upscaled(pixels)  # [used, h * w, 2, 2, 2, 2, C / 8]
        every = torch.bmm(kernels, fine.flatten(1, -2).transpose(1, 2))
        out = every[index, mask].view(len(mask), height, width, 2, 2, 2, 2)
        # From (row, column), then twice (row, column) within a pixel, to (rows, columns).
        return out.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(mask), 4 * height, 4 * width)

    def _upscaled(self, pixels: Tensor) -> Tensor:
        """Apply ``output_upscaling`` to each pixel: [n, p, C] to [n, p, 2, 2, 2, 2, C / 8]."""
        to_2x, norm, act, to_4x, last_act = self.output_upscaling
        x = act(
            F.layer_norm(
                _each_into_four(pixels, to_2x), norm.weight.shape, norm.weight, norm.bias, norm.eps
            )
        )
        return last_act(_each_into_four(x, to_4x))  # type: ignore[no-any-return]


def _shared(image: Tensor, dense: Tensor) -> bool:
    """Return True if all prompts are on one image and none has its own mask prompt."""
    return len(image) == 1 and (len(dense) == 1 or dense.stride(0) == 0)


def _each_into_four(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Apply a 2x2 transposed convolution of stride 2: [..., C] to [..., 2, 2, C']."""
    weight = layer.weight.permute(0, 2, 3, 1)  # [C, 2, 2, C']
    bias = None if layer.bias is None else layer.bias.repeat(4)
    out: Tensor = F.linear(x, weight.flatten(1).T, bias).unflatten(-1, weight.shape[1:])
    return out
