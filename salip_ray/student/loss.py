"""The loss of a student: overlap and cross-entropy, weighted by the trust in each label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.student.targets import IGNORED

_SMOOTH = 1.0  # pixels; makes the overlap of two empty masks 1


def student_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return cross-entropy plus one minus soft Dice, averaged over images by weight.

    Ignored pixels count in neither term. An image counts for nothing if its weight is 0 or all of
    its pixels are ignored.

    Args:
        logits: float [n, channels, h, w]; channel 0 is the background.
        target: int64 [n, h, w]: a channel, or :data:`~salip_ray.student.targets.IGNORED`.
        weights: float [n], at least 0.

    Returns:
        The weighted mean over the images; 0 if no image counts.
    """
    known = target != IGNORED
    pixels = known.sum(dim=(1, 2))
    entropy = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
    per_image = entropy.sum(dim=(1, 2)) / pixels.clamp_min(1) + 1 - _soft_dice(logits, target)
    used = weights * (pixels > 0)
    return (used * per_image).sum() / used.sum().clamp_min(1e-6)


def _soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Return the Dice of probabilities and target on known pixels, averaged over classes: [n]."""
    known = (target != IGNORED)[:, None]
    wanted = F.one_hot(target.clamp_min(0), logits.shape[1]).movedim(-1, 1)[:, 1:] * known
    given = logits.softmax(dim=1)[:, 1:] * known
    both = (given * wanted).sum(dim=(2, 3))
    total = given.sum(dim=(2, 3)) + wanted.sum(dim=(2, 3))
    return ((2 * both + _SMOOTH) / (total + _SMOOTH)).mean(dim=1)


def hard_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Return the Dice of the most likely channel with the target: [n, channels - 1].

    Only known pixels count. NaN if a class is in neither.
    """
    known = target != IGNORED
    predicted = logits.argmax(dim=1)
    dice = []
    for channel in range(1, logits.shape[1]):
        one, other = (predicted == channel) & known, target == channel
        total = one.sum(dim=(1, 2)) + other.sum(dim=(1, 2))
        dice.append(2 * (one & other).sum(dim=(1, 2)) / total)
    return torch.stack(dice, dim=1)
