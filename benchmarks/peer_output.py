"""The result of one candidate of ``benchmarks.peers``, and how alike two results are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from salip_ray.schema import Mask

SAME_IOU = 0.999  #: rounding moves a pixel of an outline now and then


@dataclass(frozen=True)
class Output:
    """The result of one candidate.

    Attributes:
        masks: of the proposals, bool [H, W] each.
        picks: indices into ``masks`` by class, best first; a cascade has them.
        labels: bool [H, W] by class; a cascade has them.
    """

    masks: list[Mask]
    picks: dict[str, list[int]] = field(default_factory=dict)
    labels: dict[str, Mask] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the result into an ``.npz`` file."""
        every = [*self.masks, *self.labels.values()]
        about = {
            "shape": every[0].shape if every else (0, 0),
            "n_masks": len(self.masks),
            "picks": self.picks,
            "labels": list(self.labels),
        }
        packed = np.packbits(np.array([mask.ravel() for mask in every], np.bool_), axis=-1)
        np.savez(path, packed=packed, about=json.dumps(about))

    @classmethod
    def load(cls, path: Path) -> Output:
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            about, packed = json.loads(str(file["about"])), file["packed"]
        height, width = about["shape"]
        n_masks, n_pixels = about["n_masks"], height * width
        every = [
            np.unpackbits(row, count=n_pixels).astype(np.bool_).reshape(height, width)
            for row in packed
        ]
        labels = dict(zip(about["labels"], every[n_masks:], strict=True))
        return cls(every[:n_masks], about["picks"], labels)


@dataclass(frozen=True)
class Agreement:
    """How alike a result is to that of the reference.

    Attributes:
        n_masks: of the result.
        n_reference: masks of the reference.
        least_iou: of each mask of either side and the mask of the other side that is most alike;
            1 if neither has any.
        same_picks: the same candidates are picked for every class, in the same order.
        least_dice: of the labels; 1 if there are none.
    """

    n_masks: int
    n_reference: int
    least_iou: float
    same_picks: bool
    least_dice: float

    @property
    def holds(self) -> bool:
        """Both results are the same up to rounding."""
        return (
            self.n_masks == self.n_reference
            and min(self.least_iou, self.least_dice) >= SAME_IOU
            and self.same_picks
        )

    def text(self, cascade: bool) -> str:
        """Return the cell of the table."""
        cell = f"{self.n_masks} of {self.n_reference}, IoU {self.least_iou:.4f}"
        if cascade:
            picks = "same picks" if self.same_picks else "other picks"
            cell += f", {picks}, Dice {self.least_dice:.4f}"
        return cell if self.holds else f"DIFFERS: {cell}"


def agreement(result: Output, reference: Output) -> Agreement:
    """Compare a result with that of the reference."""
    # Each pick as a mask: ids of two results agree only if their masks are in the same order.
    picks = _same_picks(result, reference)
    dices = [
        _dice(result.labels.get(name, np.zeros_like(mask)), mask)
        for name, mask in reference.labels.items()
    ]
    extra = any(mask.any() for name, mask in result.labels.items() if name not in reference.labels)
    return Agreement(
        len(result.masks),
        len(reference.masks),
        _least_best_iou(result.masks, reference.masks),
        picks,
        0.0 if extra else min(dices, default=1.0),
    )


def _least_best_iou(ours: list[Mask], theirs: list[Mask]) -> float:
    if not ours or not theirs:
        return float(len(ours) == len(theirs))
    a, b = (np.array([m.ravel() for m in side], np.float32) for side in (ours, theirs))
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1)[None] - both
    ious = both / np.maximum(either, 1)
    return float(min(ious.max(0).min(), ious.max(1).min()))


def _same_picks(result: Output, reference: Output) -> bool:
    if {k: len(v) for k, v in result.picks.items()} != {
        k: len(v) for k, v in reference.picks.items()
    }:
        return False
    return all(
        _dice(result.masks[one], reference.masks[other]) >= SAME_IOU
        for name, picks in result.picks.items()
        for one, other in zip(picks, reference.picks[name], strict=True)
    )


def _dice(one: Mask, other: Mask) -> float:
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0
