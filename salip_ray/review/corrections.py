"""Count what people decided about an output, and what their corrections changed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from salip_ray.datasets.index import cascade_masks
from salip_ray.datasets.reviews import Decision, Reviews
from salip_ray.evaluation.overlap import dice
from salip_ray.output.cells import read_mask
from salip_ray.output.masks import label_map
from salip_ray.output.reader import LabelOutput

_COLUMNS = ("image_id", "height", "width", "masks")


@dataclass
class ClassReviews:
    """Decisions on one class.

    Attributes:
        label: of the class.
        colour: its class id.
        verdicts: number of images by verdict.
        reasons: number of corrections and rejections by reason; those without one are left out.
        dice: of each label that was corrected with its correction. It is 0 for a class that a
            person added or erased, and NaN if only pixels to ignore were marked.
    """

    label: str
    colour: int
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    dice: list[float] = field(default_factory=list)

    @property
    def known_dice(self) -> Sequence[float]:
        """Return the Dice of the corrections that have one."""
        return [value for value in self.dice if not math.isnan(value)]

    @property
    def median_dice(self) -> float:
        """Return the median Dice of labels with their corrections; NaN if there are none."""
        return statistics.median(self.known_dice) if self.known_dice else math.nan


def count_decisions(labels: LabelOutput, reviews: Reviews | None = None) -> list[ClassReviews]:
    """Return the decisions on each class of an output; empty if nothing is decided.

    Args:
        labels: the output.
        reviews: its decisions; by default they are read.

    Raises:
        OutputError: a corrected label map is missing or unreadable.
    """
    reviews = reviews or Reviews.of(labels)
    if not reviews.decisions:
        return []
    ids = {spec.label: spec.class_id for spec in labels.classes}
    counts = {spec.class_id: ClassReviews(spec.label, spec.class_id) for spec in labels.classes}
    ignore = 255 if len(ids) <= 254 else 65_535
    for row in labels.rows(columns=_COLUMNS):
        standing = reviews.standing(row["image_id"], ids.values())
        for class_id, decision in standing.items():
            counts[class_id].verdicts[decision.verdict] += 1
            if decision.reason:
                counts[class_id].reasons[decision.reason] += 1
        if any(decision.verdict == "corrected" for decision in standing.values()):
            _add_dice(counts, row, ids, standing, reviews, ignore)
    return list(counts.values())


def _add_dice(
    counts: Mapping[int, ClassReviews],
    row: Mapping[str, object],
    ids: Mapping[str, int],
    standing: Mapping[int, Decision],
    reviews: Reviews,
    ignore: int,
) -> None:
    drawn = reviews.drawn(standing, ignore)
    if drawn is None:
        return
    masks = [read_mask(cell) for cell in cascade_masks(row, ids)]
    before = label_map(masks, *drawn.shape, n_classes=len(ids))
    for class_id, decision in standing.items():
        if decision.verdict == "corrected":
            counts[class_id].dice.append(dice(before == class_id, drawn == class_id))
