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
from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

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


class QuickMaskDecoder(MaskDecoder):  # type: ignore[misc]  # segment_anything is untyped
    """A ``MaskDecoder`` that is faster for many prompts on one image.

    It shares the modules of ``decoder``, with the same state dict and the same call.
    """

    def __init__(self, decoder: MaskDecoder) -> None:
        nn.Module.__init__(self)
        self.transformer_dim = decoder.transformer_dim
        self.num_multimask_outputs = decoder.num_multimask_outputs
        self.num_mask_tokens = decoder.num_mask_tokens
        self._modules.update(decoder._modules)
        self._parameters.update(decoder._parameters)

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return all masks and their predicted IoUs, like the official decoder."""
        if not _shared(image_embeddings, dense_prompt_embeddings):
            dtype = self.iou_token.weight.dtype
            logits, ious = super().predict_masks(
                image_embeddings=image_embeddings.to(dtype),
                image_pe=image_pe.to(dtype),
                sparse_prompt_embeddings=sparse_prompt_embeddings.to(dtype),
                dense_prompt_embeddings=dense_prompt_embeddings.to(dtype),
            )
            return logits.float(), ious.float()
        decoded = self._decode(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, 0, None
        )
        shape = len(sparse_prompt_embeddings), self.num_mask_tokens
        return decoded.logits.unflatten(0, shape), decoded.predicted_iou.view(shape)

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
            official: tuple[Tensor, Tensor] = super().forward(
                image_embeddings,
                image_pe,
                sparse_prompt_embeddings,
                dense_prompt_embeddings,
                multimask_output,
            )
            return official
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
    ) -> Decoded:
        height, width = image.shape[2:]
        dtype = self.iou_token.weight.dtype
        keys = (image + dense[:1]).to(dtype).flatten(2).transpose(1, 2).contiguous()
        key_pe = image_pe.to(dtype).flatten(2).transpose(1, 2).contiguous()
        shared = share(self.transformer, keys, key_pe)
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat((output_tokens.expand(len(sparse), -1, -1), sparse.to(dtype)), dim=1)
        step = len(tokens)
        if keys.device.type == "cpu":
            # Slices of equal length: a short last slice takes nearly as long as a full one.
            slices = round(len(tokens) * keys[0].numel() * keys.element_size() / _SLICE_BYTES)
            step = math.ceil(len(tokens) / max(1, slices))
        logits, ious, prompts = [], [], []
        for start in range(0, len(tokens), step):
            hidden, pixels = two_way(self.transformer, shared, tokens[start : start + step])
            iou = self.iou_prediction_head(hidden[:, 0])[:, first:last]
            keep = torch.ones_like(iou, dtype=torch.bool) if threshold is None else iou > threshold
            prompt, mask = keep.nonzero(as_tuple=True)
            logits.append(self._masks(hidden[:, 1:], pixels, prompt, mask + first, height, width))
            ious.append(iou[keep])
            prompts.append(prompt + start)
        return Decoded(torch.cat(logits).float(), torch.cat(ious).float(), torch.cat(prompts))

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


# ------------------------------------------------------------------------------ transformer


class Shared(NamedTuple):
    """The first layer's projections of an image, which all prompts share.

    Attributes:
        keys: the image's tokens, [1, p, C].
        key_pe: their positional encoding, [1, p, C].
        placed: the sum of both.
        to_tokens: keys and values of the attention from tokens to the image, [heads, p, d].
        to_image: queries of the attention from the image to tokens, [heads, p, d].
    """

    keys: Tensor
    key_pe: Tensor
    placed: Tensor
    to_tokens: tuple[Tensor, Tensor]
    to_image: Tensor


def share(transformer: TwoWayTransformer, keys: Tensor, key_pe: Tensor) -> Shared:
    """Compute the projections of the first layer that are equal for all prompts."""
    placed, first = keys + key_pe, transformer.layers[0]
    by_tokens, by_image = first.cross_attn_token_to_image, first.cross_attn_image_to_token
    return Shared(
        keys,
        key_pe,
        placed,
        to_tokens=(
            _heads(by_tokens.k_proj(placed), by_tokens)[0],
            _heads(by_tokens.v_proj(keys), by_tokens)[0],
        ),
        to_image=_heads(by_image.q_proj(placed), by_image)[0],
    )


def two_way(transformer: TwoWayTransformer, image: Shared, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Run ``TwoWayTransformer`` on one image for n prompts.

    Args:
        transformer: its weights.
        image: of :func:`share`.
        tokens: of the prompts, [n, t, C].

    Returns:
        The processed tokens [n, t, C], and the image's tokens for each prompt [n, p, C].
    """
    queries, keys, placed = tokens, image.keys, image.placed
    for number, layer in enumerate(transformer.layers):
        queries, keys = _layer(layer, queries, keys, tokens, placed, image if not number else None)
        placed = keys + image.key_pe
    attended = _tokens_see_image(
        transformer.final_attn_token_to_image, queries + tokens, keys, placed
    )
    return transformer.norm_final_attn(queries + attended), keys


def _layer(
    layer: TwoWayAttentionBlock,
    queries: Tensor,
    keys: Tensor,
    query_pe: Tensor,
    placed: Tensor,
    shared: Shared | None,
) -> tuple[Tensor, Tensor]:
    """Run one layer; ``shared`` has the image's projections of the first layer."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        with_pe = queries + query_pe
        queries = queries + layer.self_attn(q=with_pe, k=with_pe, v=queries)
    queries = layer.norm1(queries)
    seeing = layer.cross_attn_token_to_image
    if shared is None:
        attended = _tokens_see_image(seeing, queries + query_pe, keys, placed)
    else:
        attended = _tokens_see_shared_image(seeing, queries + query_pe, *shared.to_tokens)
    queries = layer.norm2(queries + attended)
    queries = layer.norm3(queries + layer.mlp(queries))
    keys = _image_sees_tokens(
        layer.cross_attn_image_to_token,
        keys,
        placed,
        queries + query_pe,
        queries,
        None if shared is None else shared.to_image,
    )
    return queries, layer.norm4(keys)


def _tokens_see_shared_image(attn: Attention, tokens: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend from the tokens of n prompts to shared keys and values [heads, p, d]."""
    q = _heads(attn.q_proj(tokens), attn)
    q = q / math.sqrt(q.shape[-1])
    weights = (_by_head(q) @ k.transpose(1, 2)).softmax(dim=-1)  # [heads, n * t, p]
    return attn.out_proj(_by_prompt(weights @ v, len(tokens)))  # type: ignore[no-any-return]


def _tokens_see_image(attn: Attention, tokens: Tensor, keys: Tensor, placed: Tensor) -> Tensor:
    """Compute ``attn(q=tokens, k=placed, v=keys)`` by projecting tokens instead of pixels.

    The bias of the keys adds a constant to all scores of a query, which the softmax removes. The
    bias of the values is added at the end, since the weights sum to 1.
    """
    t = tokens.shape[1]
    q = _heads(attn.q_proj(tokens), attn)  # [n, heads, t, d]
    q = q / math.sqrt(q.shape[-1])
    by_key = attn.k_proj.weight.unflatten(0, (attn.num_heads, -1))  # [heads, d, C]
    scores = torch.bmm((q @ by_key).flatten(1, 2), placed.transpose(1, 2))  # [n, heads * t, p]
    attended = torch.bmm(scores.softmax(dim=-1), keys).unflatten(1, (attn.num_heads, t))
    by_value = attn.v_proj.weight.unflatten(0, (attn.num_heads, -1)).transpose(1, 2)
    out = (attended @ by_value).transpose(1, 2).flatten(2) + attn.v_proj.bias
    return attn.out_proj(out)  # type: ignore[no-any-return]


def _image_sees_tokens(
    attn: Attention,
    keys: Tensor,
    placed: Tensor,
    tokens: Tensor,
    values: Tensor,
    q: Tensor | None,
) -> Tensor:
    """Compute ``keys + attn(q=placed, k=tokens, v=values)`` by projecting tokens, not pixels.

    Pixels are the last axis of the scores, so that the softmax over a few tokens is vectorised. The
    bias of the output is added to the first head, whose weights sum to 1. ``q`` are the queries of
    ``placed`` [heads, p, d], if all prompts share them.
    """
    n, t, _ = tokens.shape
    heads = attn.num_heads
    k = _heads(attn.k_proj(tokens), attn)  # [n, heads, t, d]
    k = k / math.sqrt(k.shape[-1])
    if q is not None:
        scores = (_by_head(k) @ q.transpose(1, 2)).unflatten(1, (n, t)).transpose(0, 1)
    else:
        by_query = attn.q_proj.weight.unflatten(0, (heads, -1))  # [heads, d, C]
        constant = k @ attn.q_proj.bias.view(heads, -1, 1)  # [n, heads, t, 1]
        scores = torch.bmm((k @ by_query).flatten(1, 2), placed.transpose(1, 2))
        scores = scores.unflatten(1, (heads, t)).add_(constant)
    weights = scores.softmax(dim=2).flatten(1, 2)  # [n, heads * t, p]
    by_output = attn.out_proj.weight.T.unflatten(0, (heads, -1))  # [heads, d, C]
    brought = _heads(attn.v_proj(values), attn) @ by_output  # [n, heads, t, C]
    brought[:, 0] += attn.out_proj.bias
    every = keys.expand(n, -1, -1)
    return torch.baddbmm(every, weights.transpose(1, 2), brought.flatten(1, 2))


def _heads(x: Tensor, attn: Attention) -> Tensor:
    """Reshape [n, t, heads * d] to [n, heads, t, d]."""
    heads: Tensor = x.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    return heads


def _by_head(x: Tensor) -> Tensor:
    """Reshape [n, heads, t, d] to [heads, n * t, d]."""
    return x.transpose(0, 1).flatten(1, 2)


def _by_prompt(x: Tensor, n: int) -> Tensor:
    """Reshape [heads, n * t, d] to [n, t, heads * d]."""
    prompts: Tensor = x.unflatten(1, (n, -1)).permute(1, 2, 0, 3).flatten(2)
    return prompts
