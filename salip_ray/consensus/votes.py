"""The vote of several runs on one class of one image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salip_ray.cascade.geometry import overlap
from salip_ray.schema import Mask


@dataclass(frozen=True)
class Vote:
    """What several masks of one class have in common.

    Attributes:
        agreed: pixels that more than half of the masks have, bool [H, W].
        disputed: pixels that some masks have and others lack, bool [H, W].
        agreement: mean Dice of all pairs of masks, 0 to 1. Two empty masks have the Dice 1.
    """

    agreed: Mask
    disputed: Mask
    agreement: float


def count_votes(masks: Sequence[Mask]) -> Vote:
    """Return the vote of masks of one class.

    Args:
        masks: at least two, of one shape; a run without a label has an empty one.
    """
    votes = np.zeros(masks[0].shape, np.uint16)
    for mask in masks:
        votes += mask
    pairs = [overlap(one, other) for one, other in itertools.combinations(masks, 2)]
    return Vote(
        agreed=votes * 2 > len(masks),
        disputed=(votes > 0) & (votes < len(masks)),
        agreement=float(np.mean(np.nan_to_num(pairs, nan=1.0))),
    )
