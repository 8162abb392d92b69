"""Candidates' own masks, against each other and against a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from salip_ray.cascade.prompting import Size
from salip_ray.cascade.resolution import to_original
from salip_ray.rows import Candidate, Mask


def union_of(candidates: Sequence[Candidate], original_size: Size) -> Mask:
    """The candidates' masks united, on the original pixels [H, W]; empty where there is none."""
    union: Mask = np.zeros(original_size, np.bool_)
    for candidate in candidates:
        union |= to_original(candidate.mask, original_size)
    return union


def overlap(one: Mask, other: Mask) -> float:
    """Dice of two masks of one shape; NaN where both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else math.nan


def closest(candidates: Sequence[Candidate], reference: Mask, k: int) -> list[Candidate]:
    """Up to ``k`` candidates whose union comes closest to a reference, by Dice.

    Greedy: the best alone, then whatever raises the Dice of the union most. Of equals the lower id.

    Args:
        candidates: masks of the working image.
        reference: bool, of the working size.
        k: how many at most.
    """
    chosen: list[Candidate] = []
    union: Mask = np.zeros_like(reference)
    reached = 0.0
    left = sorted(candidates, key=lambda candidate: candidate.id)
    while left and len(chosen) < k:
        gains = [overlap(union | candidate.mask, reference) for candidate in left]
        best = int(np.argmax(np.nan_to_num(gains)))
        if not gains[best] > reached:
            break
        reached = gains[best]
        chosen.append(left.pop(best))
        union |= chosen[-1].mask
    return chosen
