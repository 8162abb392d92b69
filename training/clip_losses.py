"""What CLIP is trained to do: name a crop, and rank the candidates of one image for the organ.

The cascade reads CLIP text to image: of all candidates of an image, the one nearest to the class's
sentences wins. So beside CLIP's usual contrast of a crop against the texts, two losses compare
crops for one text: the candidates of the same image, whose order should follow how well each covers
the organ, and all crops of the batch, of which those of other organs should stay below.

Two towers that know nothing have nothing to align with. Each class therefore has an anchor, a
learnt direction that plays one more sentence to the crops and a target to the sentences; anchors
are thrown away after training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_SHARPNESS = 14.0  # of the wanted ranking: a grade .1 lower is worth a quarter as much
_GOOD_ENOUGH = 0.6  # a group whose best candidate is worse teaches no ranking
_WEIGHTS = {"name": 1.0, "rank": 1.0, "find": 0.5, "read": 0.5}


@dataclass(frozen=True, slots=True)
class CropBatch:
    """G groups of M crops.

    Attributes:
        crops: float32 [G * M, 3, 64, 64], normalised.
        labels: int64 [G * M, 2], class and next most likely class; -1 where there is no crop.
        shares: float32 [G * M], how much a crop is the first of them.
        grades: float32 [G, M], how good a prompt for the organ a candidate is.
        targets: int64 [G], class of the organ of each group.
    """

    crops: Tensor
    labels: Tensor
    shares: Tensor
    grades: Tensor
    targets: Tensor


def encode_text(clip: CLIP, tokens: Tensor) -> Tensor:
    """`clip.encode_text`, not normalised, without the padding that all sentences end in.

    Attention is causal, so what comes after the end of a sentence changes nothing; leaving it out
    makes a step several times cheaper.
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
        """Unit vectors [classes, d]."""
        return F.normalize(self.weight, dim=-1)


def clip_loss(clip: CLIP, anchors: Anchors, batch: CropBatch, tokens: Tensor) -> dict[str, Tensor]:
    """Losses of one batch: "total" and its parts.

    Args:
        clip: the model, in training mode.
        anchors: of the classes that `tokens` has sentences of.
        batch: groups of crops.
        tokens: int64 [views, classes, length]: some sentences of every class.
    """
    views, classes = tokens.shape[:2]
    raw = encode_text(clip, tokens.flatten(0, 1)).unflatten(0, (views, classes))
    if views > 1:  # each sentence on its own, and all of a class as one mean, as the cascade does
        raw = torch.cat((raw, raw.mean(dim=0, keepdim=True)))
    texts = torch.cat((F.normalize(raw, dim=-1), anchors()[None]))
    scale = clip.logit_scale.exp()
    valid = batch.labels[:, 0] >= 0
    images = F.normalize(clip.encode_image(batch.crops[valid]), dim=-1)
    seen = scale * torch.einsum("nd,vcd->vnc", images, texts)
    logits = seen.new_zeros(len(texts), len(valid), classes)
    logits[:, valid] = seen

    losses = {
        "name": _name(seen, batch.labels[valid], batch.shares[valid]),
        "rank": _rank(logits, batch),
        "read": _read(scale * texts[:-1] @ texts[-1].T),
        "find": _find(seen, batch.labels[valid, 0], batch.shares[valid]),
    }
    total = torch.stack([_WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
    return {"total": total, **losses}


def _name(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Image to text: the class of each crop, split between two where it is of both."""
    log_p = F.log_softmax(logits, dim=-1)
    chosen = log_p.gather(2, labels.expand(len(log_p), -1, -1))
    # Where both classes are one, the parts add up to it.
    return -(shares * chosen[..., 0] + (1 - shares) * chosen[..., 1]).mean()


def _read(logits: Tensor) -> Tensor:
    """Text to anchor: sentences [views, classes] each name their class."""
    views, classes = logits.shape[:2]
    labels = torch.arange(classes, device=logits.device).repeat(views)
    return F.cross_entropy(logits.flatten(0, 1), labels)


def _rank(logits: Tensor, batch: CropBatch) -> Tensor:
    """Text to image within each group: the candidates' order by grade."""
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
    """Text to image over the whole batch: every crop of a class above those of all others."""
    log_p = F.log_softmax(logits, dim=1)
    wanted = F.one_hot(labels, logits.shape[2]).to(logits.dtype) * shares[:, None]
    total = wanted.sum(dim=0)
    per_class = -(wanted * log_p).sum(dim=1) / total.clamp_min(1e-6)
    # Of crops that are all right, none can have more than its part: only the excess is a loss.
    floor = -(
        (wanted / total.clamp_min(1e-6)) * (wanted / total.clamp_min(1e-6)).clamp_min(1e-12).log()
    ).sum(dim=0)
    present = total > 0
    return (per_class - floor)[:, present].mean()
