"""Losses of CLIP: name a crop, and rank the candidates of one image for the organ.

The cascade uses CLIP from text to image: it takes the candidate nearest to the class's sentences.
CLIP's usual loss compares a crop with the texts. Two more losses compare crops for one text: the
candidates of one image, ordered by how well each covers the organ, and all crops of the batch, in
which crops of other organs rank lower.

Two untrained towers have nothing to align with. Each class therefore has an anchor, a learnt
direction that is one more sentence for the crops and a target for the sentences. Anchors are not
part of the exported model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_SHARPNESS = 14.0  # of the target ranking: a grade .1 lower has a quarter of the weight
_GOOD_ENOUGH = 0.6  # groups with a worse best candidate are not used for ranking
_WEIGHTS = {"name": 1.0, "rank": 1.0, "find": 0.5, "read": 0.5}


@dataclass(frozen=True, slots=True)
class CropBatch:
    """G groups of M crops.

    Attributes:
        crops: float32 [G * M, 3, 64, 64], normalised.
        labels: int64 [G * M, 2], class and next most likely class; -1 if there is no crop.
        shares: float32 [G * M], degree to which a crop is the first of them.
        grades: float32 [G, M], quality of a candidate as a prompt for the organ.
        targets: int64 [G], class of the organ of each group.
    """

    crops: Tensor
    labels: Tensor
    shares: Tensor
    grades: Tensor
    targets: Tensor


def encode_text(clip: CLIP, tokens: Tensor) -> Tensor:
    """Return `clip.encode_text`, not normalised, without the padding after all sentences.

    Attention is causal, so the padding changes nothing. Without it a step is several times faster.
    """
    length = int((tokens.argmax(dim=1) + 1).max())
    tokens = tokens[:, :length]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    ends: Tensor = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
    features: Tensor = ends @ clip.text_projection
    return features


class Anchors(nn.Module):
    """A direction for each class, [classes, d], orthogonal at first."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(classes, width)))

    def forward(self) -> Tensor:
        """Return unit vectors [classes, d]."""
        return F.normalize(self.weight, dim=-1)


def clip_loss(clip: CLIP, anchors: Anchors, batch: CropBatch, tokens: Tensor) -> dict[str, Tensor]:
    """Return the losses of one batch: "total" and its parts.

    Args:
        clip: the model, in training mode.
        anchors: of the classes that `tokens` has sentences of.
        batch: groups of crops.
        tokens: int64 [classes, length], a sentence of every class.
    """
    sentences = F.normalize(encode_text(clip, tokens), dim=-1)
    texts = torch.stack((sentences, anchors()))  # two views of every class
    scale = clip.logit_scale.exp()
    valid = batch.labels[:, 0] >= 0
    images = F.normalize(clip.encode_image(batch.crops[valid]), dim=-1)
    similar = scale * torch.einsum("nd,vcd->vnc", images, texts)
    logits = similar.new_zeros(len(texts), len(valid), len(tokens))
    logits[:, valid] = similar

    losses = {
        "name": _name(similar, batch.labels[valid], batch.shares[valid]),
        "rank": ranking_loss(logits, batch),
        "read": _read(scale * sentences @ texts[1].T),
        "find": _find(similar, batch.labels[valid, 0], batch.shares[valid]),
    }
    total = torch.stack([_WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
    return {"total": total, **losses}


def _name(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Return the image-to-text loss: the class of each crop, or both classes by their share."""
    log_p = F.log_softmax(logits, dim=-1)
    chosen = log_p.gather(2, labels.expand(len(log_p), -1, -1))
    # If both classes are the same, the parts add up to it.
    return -(shares * chosen[..., 0] + (1 - shares) * chosen[..., 1]).mean()


def _read(logits: Tensor) -> Tensor:
    """Return the text-to-anchor loss: each sentence [classes, classes] names its class."""
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def ranking_loss(logits: Tensor, batch: CropBatch) -> Tensor:
    """Return the text-to-image loss within each group: the order of candidates by grade."""
    groups, size = batch.grades.shape
    valid = (batch.labels[:, 0] >= 0).view(groups, size)
    of_target = logits.unflatten(1, (groups, size)).gather(
        3, batch.targets.view(1, groups, 1, 1).expand(len(logits), -1, size, 1)
    )[..., 0]
    # Finite, not -inf: 0 * -inf would be NaN.
    log_p = F.log_softmax(of_target.masked_fill(~valid, -1e4), dim=-1)
    wanted = (_SHARPNESS * batch.grades).masked_fill(~valid, -1e4).softmax(dim=-1)
    taught = batch.grades.amax(dim=1) >= _GOOD_ENOUGH
    if not taught.any():
        return logits.new_zeros(())
    divergence = (wanted * (wanted.clamp_min(1e-12).log() - log_p)).sum(dim=-1)
    return divergence[:, taught].mean()


def _find(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Return the text-to-image loss over the batch: crops of a class rank above all others."""
    log_p = F.log_softmax(logits, dim=1)
    wanted = F.one_hot(labels, logits.shape[2]).to(logits.dtype) * shares[:, None]
    total = wanted.sum(dim=0)
    per_class = -(wanted * log_p).sum(dim=1) / total.clamp_min(1e-6)
    # The crops of a class share its probability: only the excess over this entropy is a loss.
    floor = -(
        (wanted / total.clamp_min(1e-6)) * (wanted / total.clamp_min(1e-6)).clamp_min(1e-12).log()
    ).sum(dim=0)
    present = total > 0
    return (per_class - floor)[:, present].mean()
