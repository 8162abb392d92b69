"""Which stage of the cascade lost the Dice: SAM's proposals, CLIP's pick, or SAM's refinement.

Three masks of a class on an image are compared with the reference: the best union of candidates
that a retrieval could have picked, the union of those that were picked, and the refined label. A
label below :data:`GOOD` is put down to the first of them that was below it already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

GOOD = 0.8
"""Dice from which a label counts as good."""

STAGES = {
    "proposal": "no good proposal",
    "pick": "wrong pick",
    "refine": "bad refine",
    "proposal_or_pick": "no good proposal or wrong pick",
}
"""Where a label can fail, and how a person calls it.

``proposal_or_pick`` is what can be said of a run that had no references, and so kept nothing of
the candidates it did not pick.
"""


@dataclass(frozen=True, slots=True)
class Walk:
    """Dice of one image and class along the cascade, and the stage at which it failed.

    ``proposed`` is that of the best candidates, ``picked`` of the retrieved ones, ``refined`` of
    the label. ``failed`` is empty for a good label. A figure that the run did not keep is NaN.
    """

    image_id: str
    uri: str
    label: str
    proposed: float
    picked: float
    refined: float
    failed: str


def failed_stage(proposed: float, picked: float, refined: float, good: float = GOOD) -> str:
    """The stage that lost a label, of :data:`STAGES`; empty where the label is good.

    Args:
        proposed: Dice of the best candidates, or NaN where it is not known.
        picked: Dice of the retrieved candidates; 0 where there were none, NaN if unknown.
        refined: Dice of the label.
        good: Dice from which a mask counts as good.
    """
    if refined >= good:
        return ""
    if picked >= good:
        return "refine"
    if math.isnan(proposed):
        return "proposal_or_pick"
    # What was picked is one of the proposals, whatever a greedy search found.
    return "pick" if proposed >= good else "proposal"


def failures(walks: Iterable[Walk]) -> dict[str, dict[str, int]]:
    """How many labels of each class failed at each stage, the stages in their order."""
    counts: dict[str, dict[str, int]] = {}
    for walk in walks:
        found = counts.setdefault(walk.label, dict.fromkeys(STAGES, 0))
        if walk.failed:
            found[walk.failed] += 1
    return counts
