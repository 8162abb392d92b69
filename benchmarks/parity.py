"""How far the cascade's result is from that of the serial loop over the official packages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.serial import SerialResult
from salip_ray.cascade.cascade import CascadeResult
from salip_ray.schema import Candidate, Mask

_SAME_IOU = 0.999  # rounding moves a pixel of an outline now and then, never a part


@dataclass(frozen=True)
class Parity:
    """One image's comparison.

    Attributes:
        candidates: the same parts (point, view, and mask up to rounding), in the same order.
        picks: the same candidates retrieved for every class, in the same order.
        candidate_pixels: pixels in which the candidates' masks differ, over all of them.
        label_pixels: pixels in which the final masks differ.
        dice: of the final masks, the least of the classes; 1 where neither has any.
    """

    candidates: bool
    picks: bool
    candidate_pixels: int
    label_pixels: int
    dice: float

    @property
    def holds(self) -> bool:
        """Candidates, order and picks are the same."""
        return self.candidates and self.picks

    @property
    def exact(self) -> bool:
        """Not a pixel differs."""
        return self.holds and self.candidate_pixels == 0 and self.label_pixels == 0


def compare(ours: CascadeResult, official: SerialResult) -> Parity:
    """Compare the results of one image."""
    pairs = list(zip(ours.candidates, official.candidates, strict=False))
    same = len(ours.candidates) == len(official.candidates) == len(pairs)
    picks: dict[str, list[int]] = {}
    for selection in ours.selections:
        picks.setdefault(selection.label, []).append(selection.candidate_id)
    masks = {mask.label: mask.mask for mask in ours.masks if mask.method == "cascade"}
    differing, dice = 0, 1.0
    for label, theirs in official.masks.items():
        mask = masks.get(label, np.zeros_like(theirs))
        differing += np.count_nonzero(mask != theirs)
        dice = min(dice, _dice(mask, theirs))
    return Parity(
        candidates=same
        and ours.n_proposed == official.n_proposed
        and all(_same(one, other) for one, other in pairs),
        picks=picks == official.picks,
        candidate_pixels=sum(np.count_nonzero(a.mask != b.mask) for a, b in pairs),
        label_pixels=differing,
        dice=dice,
    )


def _same(one: Candidate, other: Candidate) -> bool:
    return (
        (one.id, one.point, one.crop_box) == (other.id, other.point, other.crop_box)
        and _iou(one.mask, other.mask) >= _SAME_IOU
        and abs(one.predicted_iou - other.predicted_iou) < 1e-4
    )


def _iou(one: Mask, other: Mask) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def _dice(one: Mask, other: Mask) -> float:
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0
