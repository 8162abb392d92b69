"""SAM's two-way transformer for many prompts on one image.

It has the weights and results of ``segment_anything``'s ``TwoWayTransformer``, in less time and
memory (:mod:`salip_ray.models.sam.decoder`): the first layer, in which all copies of the image's
tokens are still equal, projects one of them. Later layers project the few prompt tokens instead of
the many image tokens.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor


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
