"""SAM's mask decoder with the same weights and mathematics, in less time and memory.

All prompts of a batch lie on one image, which the official decoder forgets: it copies the image's
4,096 tokens for every prompt and projects each copy. Here

- the first layer, in which all copies are still equal, projects one;
- later, the few prompt tokens are projected instead of the many image tokens: with heads
  :math:`h`, :math:`(X W_k)_h q_h = X (W_k^T)_h q_h`, and the same for values and outputs;
- the predicted IoU is known before the mask is made, so masks below a threshold are not made;
- upscaling runs on [pixels, channels] matrices, and sorts pixels into place only in the end;
- prompts go through in slices that stay in the cache.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_SLICE_BYTES = 3 * 1024**2  # of the image tokens of the prompts that are decoded together


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
    """A ``MaskDecoder`` for many prompts on one image.

    Shares the modules of another: same state dict, same call. :meth:`above` leaves out the masks
    that are not confident enough.
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
        """All masks and their predicted IoUs, as the official decoder gives them."""
        if not _shared(image_embeddings, dense_prompt_embeddings):
            dtype = self.iou_token.weight.dtype
            logits, ious = super().predict_masks(
                image_embeddings=image_embeddings.to(dtype),
                image_pe=image_pe.to(dtype),
                sparse_prompt_embeddings=sparse_prompt_embeddings.to(dtype),
                dense_prompt_embeddings=dense_prompt_embeddings.to(dtype),
            )
            return logits.float(), ious.float()
        found = self._decode(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, 0, None
        )
        shape = len(sparse_prompt_embeddings), self.num_mask_tokens
        return found.logits.unflatten(0, shape), found.predicted_iou.view(shape)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """As the official decoder: logits [n, m, 4h, 4w] and IoUs [n, m]; m is 3 or 1.

        Only the masks that are returned are made.
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
        found = self._decode(
            image_embeddings,
            image_pe,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
            first,
            last,
        )
        shape = prompts, last - first
        return found.logits.unflatten(0, shape), found.predicted_iou.view(shape)

    def above(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        threshold: float,
    ) -> Decoded:
        """The masks (three a prompt) whose predicted IoU is above ``threshold``, in order."""
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
            # In equal slices, for a last one of a few prompts takes nearly as long as a full one.
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
        """Logits [m, 4 * height, 4 * width] of chosen (prompt, mask) pairs, in their order."""
        used, place = torch.unique(prompt, return_inverse=True)
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
        out = every[place, mask].view(len(mask), height, width, 2, 2, 2, 2)
        # Row and column, then those within the pixel, twice -> rows and columns.
        return out.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(mask), 4 * height, 4 * width)

    def _upscaled(self, pixels: Tensor) -> Tensor:
        """``output_upscaling`` [n, p, C] -> [n, p, 2, 2, 2, 2, C / 8]: finer pixels by pixel."""
        to_2x, norm, act, to_4x, last_act = self.output_upscaling
        x = act(
            F.layer_norm(
                _each_into_four(pixels, to_2x), norm.weight.shape, norm.weight, norm.bias, norm.eps
            )
        )
        return last_act(_each_into_four(x, to_4x))  # type: ignore[no-any-return]


def _shared(image: Tensor, dense: Tensor) -> bool:
    """Whether all prompts are on one image and none brings a mask of its own."""
    return len(image) == 1 and (len(dense) == 1 or dense.stride(0) == 0)


def _each_into_four(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2: [..., C] -> [..., 2, 2, C']."""
    weight = layer.weight.permute(0, 2, 3, 1)  # [C, 2, 2, C']
    bias = None if layer.bias is None else layer.bias.repeat(4)
    out: Tensor = F.linear(x, weight.flatten(1).T, bias).unflatten(-1, weight.shape[1:])
    return out


# ------------------------------------------------------------------------------ transformer


class Shared(NamedTuple):
    """What all prompts on an image begin with.

    Attributes:
        keys: the image's tokens, [1, p, C].
        key_pe: their positional encoding, [1, p, C].
        placed: both together.
        to_tokens: keys and values by which tokens see the image in the first layer, [heads, p, d].
        to_image: queries by which the image sees tokens there, [heads, p, d].
    """

    keys: Tensor
    key_pe: Tensor
    placed: Tensor
    to_tokens: tuple[Tensor, Tensor]
    to_image: Tensor


def share(transformer: TwoWayTransformer, keys: Tensor, key_pe: Tensor) -> Shared:
    """Do once what the first layer does for every prompt alike."""
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
    """``TwoWayTransformer`` on one image for n prompts.

    Args:
        transformer: its weights.
        image: of :func:`share`.
        tokens: of the prompts, [n, t, C].

    Returns:
        The processed tokens [n, t, C], and the image's tokens as each prompt left them [n, p, C].
    """
    queries, keys, placed = tokens, image.keys, image.placed
    for number, layer in enumerate(transformer.layers):
        queries, keys = _layer(layer, queries, keys, tokens, placed, image if not number else None)
        placed = keys + image.key_pe
    found = _tokens_see_image(transformer.final_attn_token_to_image, queries + tokens, keys, placed)
    return transformer.norm_final_attn(queries + found), keys


def _layer(
    layer: TwoWayAttentionBlock,
    queries: Tensor,
    keys: Tensor,
    query_pe: Tensor,
    placed: Tensor,
    shared: Shared | None,
) -> tuple[Tensor, Tensor]:
    """One layer; the first has the image's side done already."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        at_place = queries + query_pe
        queries = queries + layer.self_attn(q=at_place, k=at_place, v=queries)
    queries = layer.norm1(queries)
    seeing = layer.cross_attn_token_to_image
    if shared is None:
        found = _tokens_see_image(seeing, queries + query_pe, keys, placed)
    else:
        found = _tokens_see_shared_image(seeing, queries + query_pe, *shared.to_tokens)
    queries = layer.norm2(queries + found)
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
    """``attn`` of the tokens of n prompts on keys and values [heads, p, d] that all share."""
    q = _heads(attn.q_proj(tokens), attn)
    q = q / math.sqrt(q.shape[-1])
    weights = (_by_head(q) @ k.transpose(1, 2)).softmax(dim=-1)  # [heads, n * t, p]
    return attn.out_proj(_by_prompt(weights @ v, len(tokens)))  # type: ignore[no-any-return]


def _tokens_see_image(attn: Attention, tokens: Tensor, keys: Tensor, placed: Tensor) -> Tensor:
    """``attn(q=tokens, k=placed, v=keys)``, projecting tokens in the place of pixels.

    The keys' bias adds the same to all scores of a query, which the softmax takes out again; the
    values' bias goes through the weights, which sum to 1.
    """
    t = tokens.shape[1]
    q = _heads(attn.q_proj(tokens), attn)  # [n, heads, t, d]
    q = q / math.sqrt(q.shape[-1])
    by_key = attn.k_proj.weight.unflatten(0, (attn.num_heads, -1))  # [heads, d, C]
    scores = torch.bmm((q @ by_key).flatten(1, 2), placed.transpose(1, 2))  # [n, heads * t, p]
    seen = torch.bmm(scores.softmax(dim=-1), keys).unflatten(1, (attn.num_heads, t))
    by_value = attn.v_proj.weight.unflatten(0, (attn.num_heads, -1)).transpose(1, 2)
    out = (seen @ by_value).transpose(1, 2).flatten(2) + attn.v_proj.bias
    return attn.out_proj(out)  # type: ignore[no-any-return]


def _image_sees_tokens(
    attn: Attention,
    keys: Tensor,
    placed: Tensor,
    tokens: Tensor,
    values: Tensor,
    q: Tensor | None,
) -> Tensor:
    """``keys + attn(q=placed, k=tokens, v=values)``, projecting tokens in the place of pixels.

    Scores have the pixels last, so that a softmax over a few tokens is made for many at once. The
    output's bias is added to what the first head brings, whose weights sum to 1. ``q`` are the
    queries of ``placed`` [heads, p, d], where all prompts share them.
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
    """[n, t, heads * d] -> [n, heads, t, d]."""
    heads: Tensor = x.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    return heads


def _by_head(x: Tensor) -> Tensor:
    """[n, heads, t, d] -> [heads, n * t, d]."""
    return x.transpose(0, 1).flatten(1, 2)


def _by_prompt(x: Tensor, n: int) -> Tensor:
    """[heads, n * t, d] -> [n, t, heads * d]."""
    prompts: Tensor = x.unflatten(1, (n, -1)).permute(1, 2, 0, 3).flatten(2)
    return prompts
