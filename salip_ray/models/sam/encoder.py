"""SAM's image encoder with the same weights and mathematics, in less time and memory.

The blocks of ``segment_anything`` store the attention scores of all heads at once (805 MB in a
global block of ViT-B), and project the padding of windows like real tokens. Here:

- relative positions are a bias of scaled-dot-product attention. On a GPU they are concatenated to
  queries and keys, so that a fused kernel can be used. On a CPU, scores are computed for a few
  query rows at a time, which stay in the cache;
- padding is not projected. It is zero after the normalisation, so its queries, keys and values are
  the bias of the projection, which is filled in.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling.image_encoder import Block, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_SCORES_BYTES = 16 * 1024**2  # of one slice of attention scores on a CPU


class QuickBlock(nn.Module):
    """A :class:`segment_anything.modeling.image_encoder.Block`, under the same parameter names.

    Args:
        block: the block whose submodules and parameters it shares.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn, self.mlp = block.attn, block.mlp
        self.window_size: int = block.window_size

    def forward(self, x: Tensor) -> Tensor:
        """Encode tokens [B, H, W, C]; return the same shape."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor) -> Tensor:
        attn, (batch, height, width, channels) = self.attn, x.shape
        qkv = attn.qkv(x)
        side = self.window_size
        pad_h, pad_w = (-height % side, -width % side) if side else (0, 0)
        if pad_h or pad_w:
            bias = attn.qkv.bias
            filled = qkv.new_zeros(1) if bias is None else bias.to(qkv.dtype)
            padded = filled.expand(batch, height + pad_h, width + pad_w, 3 * channels).clone()
            padded[:, :height, :width] = qkv
            qkv = padded
        if side:
            rows, columns = (height + pad_h) // side, (width + pad_w) // side
            qkv = qkv.view(batch, rows, side, columns, side, 3 * channels).transpose(2, 3)
            grid = side, side
        else:
            rows = columns = 1
            grid = height, width
        tokens = grid[0] * grid[1]
        qkv = qkv.reshape(batch * rows * columns, tokens, 3, attn.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias_of_rows = bias_of_columns = None
        if attn.use_rel_pos:
            lattice = q.unflatten(2, grid)
            along_h = get_rel_pos(grid[0], grid[0], attn.rel_pos_h)
            along_w = get_rel_pos(grid[1], grid[1], attn.rel_pos_w)
            bias_of_rows = torch.einsum("bnhwc,hkc->bnhwk", lattice, along_h).flatten(2, 3)
            bias_of_columns = torch.einsum("bnhwc,wkc->bnhwk", lattice, along_w).flatten(2, 3)
        out = attention(q, k, v, bias_of_rows, bias_of_columns, scale=attn.scale)
        out = out.transpose(1, 2).reshape(batch, rows, columns, *grid, channels)
        out = out.transpose(2, 3).reshape(batch, rows * grid[0], columns * grid[1], channels)
        return attn.proj(out[:, :height, :width])  # type: ignore[no-any-return]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    of_rows: Tensor | None,
    of_columns: Tensor | None,
    *,
    scale: float,
    sliced: bool | None = None,
) -> Tensor:
    """Attend over the pixels of a grid, with decomposed relative positions.

    Args:
        q: queries [B, heads, h * w, d]; not yet scaled.
        k: keys of the same shape.
        v: values of the same shape.
        of_rows: [B, heads, h * w, h], added to a query's scores by the key's row.
        of_columns: [B, heads, h * w, w], by the key's column.
        scale: of the product of queries and keys.
        sliced: compute scores in slices instead of a fused kernel (default: on a CPU).

    Returns:
        [B, heads, h * w, d].
    """
    if of_rows is None or of_columns is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if q.device.type == "cpu" if sliced is None else sliced:
        return _attention_in_slices(q, k, v, of_rows, of_columns, scale)
    height, width = of_rows.shape[-1], of_columns.shape[-1]
    row, column = (
        torch.arange(height * width, device=k.device).div(width, rounding_mode="floor"),
        (torch.arange(height * width, device=k.device) % width),
    )
    one_hot = torch.cat((F.one_hot(row, height), F.one_hot(column, width)), dim=-1).to(k.dtype)
    queries = torch.cat((q * scale, of_rows, of_columns), dim=-1)
    keys = torch.cat((k, one_hot.expand(*k.shape[:2], -1, -1)), dim=-1)
    return F.scaled_dot_product_attention(queries, keys, v, scale=1.0)


def _attention_in_slices(
    q: Tensor, k: Tensor, v: Tensor, of_rows: Tensor, of_columns: Tensor, scale: float
) -> Tensor:
    tokens = q.shape[2]
    q, keys, v = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)
    of_rows, of_columns = of_rows.flatten(0, 1), of_columns.flatten(0, 1)
    out = torch.empty_like(q)
    # Whole sequences if several fit, else some queries of one; the shapes alone decide.
    fitting = _SCORES_BYTES // (tokens * tokens * q.element_size())
    together, queries = max(1, fitting), tokens
    if not fitting:
        queries = max(1, _SCORES_BYTES // (tokens * q.element_size()))
    for first in range(0, len(q), together):
        some = slice(first, first + together)
        for start in range(0, tokens, queries):
            asked = (some, slice(start, start + queries))
            scores = (of_rows[asked][..., :, None] + of_columns[asked][..., None, :]).flatten(2)
            scores.baddbmm_(q[asked], keys[some], alpha=scale)
            out[asked] = torch.bmm(scores.softmax(dim=-1), v[some])
    return out.view(*k.shape)


def quicken_blocks(encoder: Any) -> None:
    """Replace an encoder's blocks by :class:`QuickBlock`, in place, with the same state dict.

    Blocks of other classes are not replaced.
    """
    blocks = getattr(encoder, "blocks", None)
    if isinstance(blocks, nn.ModuleList | nn.Sequential):
        for index, block in enumerate(blocks):
            if isinstance(block, Block):
                blocks[index] = QuickBlock(block)
