"""Successive halving: rungs with more and more images and fewer and fewer recipes.

All recipes are tried on a few images, the best third of them on three times as many, and so on.
Recipes are dropped only at the end of a rung, so the winner does not depend on the order in which
trials end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from salip_ray.tuning.trials import mean_dice

FACTOR = 3
_RUNGS = 3
_MIN_IMAGES = 4  # in the first rung: fewer would select by chance

#: Dice of each class, image by image.
Scores = Sequence[Mapping[str, float]]


@dataclass
class Standing:
    """The scores of a recipe on the images so far, or the error that ended it."""

    number: int
    scores: list[Mapping[str, float]] = field(default_factory=list)
    error: str = ""

    @property
    def dice(self) -> float:
        """The mean Dice so far; NaN without a score or after an error."""
        return math.nan if self.error else mean_dice(self.scores)


def rungs(images: int) -> list[range]:
    """Return the indices of the images that each rung adds."""
    least = min(images, _MIN_IMAGES)
    ends = sorted({max(least, math.ceil(images / FACTOR**step)) for step in range(_RUNGS)})
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def survivors(standings: Sequence[Standing]) -> list[int]:
    """Return the numbers of the best third and of the given recipe (0), which is never dropped."""
    ranked = ranking(standings)
    best = {standing.number for standing in ranked[: math.ceil(len(standings) / FACTOR)]}
    return sorted(best | {0})


def ranking(standings: Sequence[Standing]) -> list[Standing]:
    """Sort by Dice, best first, ties by number; leave out recipes without a Dice."""
    scored = [standing for standing in standings if not math.isnan(standing.dice)]
    return sorted(scored, key=lambda standing: (-standing.dice, standing.number))
