"""Which stage of the cascade lost a label: the proposals, the retrieval or the refinement.

Three masks of a class on an image are compared with the reference: the best union of candidates
that a retrieval could have picked, the union of those that it picked, and the refined label. A
label below :data:`GOOD` is attributed to the first mask that is below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

GOOD = 0.8
"""Dice from which a label counts as good."""

LOSSES = (
    "proposal",  # no good candidate
    "pick",  # a good candidate, and another was retrieved
    "refine",  # a good candidate was retrieved, and its box gave a bad mask
    "empty",
    "proposal_or_pick",
)
"""The stages at which a label can fail.

``empty`` is for labels that the cascade withheld, because presence or confidence was below the
limit of the recipe. ``proposal_or_pick`` is for runs without references, which recorded nothing
about candidates that were not picked.
"""


@dataclass(frozen=True, slots=True)
class StageDice:
    """Dice of one image and class along the cascade, and the stage that lost the label.

    Attributes:
        proposed: Dice of the best candidates; NaN if the run did not record them.
        picked: Dice of the retrieved candidates; NaN if the run did not record them.
        refined: Dice of the label.
        failed: one of :data:`LOSSES`; empty for a good label.
    """

    image_id: str
    uri: str
    label: str
    proposed: float
    picked: float
    refined: float
    failed: str


def failed_stage(
    proposed: float,
    picked: float,
    refined: float,
    good: float = GOOD,
    *,
    withheld: bool = False,
) -> str:
    """Return the stage of :data:`LOSSES` that lost a label; empty if the label is good.

    Args:
        proposed: Dice of the best candidates; NaN if it is unknown.
        picked: Dice of the retrieved candidates: 0 if there were none, NaN if it is unknown.
        refined: Dice of the label.
        good: Dice from which a mask counts as good.
        withheld: candidates were retrieved, and the class was left empty.
    """
    if refined >= good:
        return ""
    if withheld:
        return "empty"
    if picked >= good:
        return "refine"
    if math.isnan(proposed):
        return "proposal_or_pick"
    # The pick is one of the proposals, so a greedy search for the best may be below it.
    return "pick" if proposed >= good else "proposal"


def count_failures(stages: Iterable[StageDice]) -> dict[str, dict[str, int]]:
    """Return the number of labels of each class that each stage lost, stages in order."""
    counts: dict[str, dict[str, int]] = {}
    for item in stages:
        of_label = counts.setdefault(item.label, dict.fromkeys(LOSSES, 0))
        if item.failed:
            of_label[item.failed] += 1
    return counts
