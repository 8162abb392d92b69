"""Which recipes go on: successive halving, in rungs of more and more images.

All recipes are tried on a few images, the best third of them on three times as many, and so on.
Within a rung nothing is decided before all are through, so that what wins does not depend on which
trial happens to end first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from salip_ray.tuning.trials import mean_dice

FACTOR = 3
_RUNGS = 3
_FEWEST = 4  # images in the first rung: by fewer, chance would choose

#: Dice of each class, image by image.
Scores = Sequence[Mapping[str, float]]


@dataclass
class Standing:
    """How far a recipe has come: the images it was tried on so far, or why it dropped out."""

    number: int
    scores: list[Mapping[str, float]] = field(default_factory=list)
    error: str = ""

    @property
    def dice(self) -> float:
        """The mean so far; NaN where nothing is known."""
        return math.nan if self.error else mean_dice(self.scores)


def rungs(images: int) -> list[range]:
    """The images (by their place) that each rung adds."""
    least = min(images, _FEWEST)
    ends = sorted({max(least, math.ceil(images / FACTOR**step)) for step in range(_RUNGS)})
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def survivors(standings: Sequence[Standing]) -> list[int]:
    """Numbers of the best third, and of the given recipe, which is measured to the end."""
    ranked = ranking(standings)
    kept = {standing.number for standing in ranked[: math.ceil(len(standings) / FACTOR)]}
    return sorted(kept | {0})


def ranking(standings: Sequence[Standing]) -> list[Standing]:
    """The best first; of equal ones the lower number. What has no Dice is left out."""
    known = [standing for standing in standings if not math.isnan(standing.dice)]
    return sorted(known, key=lambda standing: (-standing.dice, standing.number))
