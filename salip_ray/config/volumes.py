"""The section ``volumes``: how the slices of a volume are labelled together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from salip_ray.config.base import Section


class VolumesConfig(Section):
    """How the slices of a volume are labelled together.

    With ``consistent``, the label of a class is chosen for the whole stack. The possible labels of
    a slice are the retrieved candidates, the same with one of ``retrieve.runners_up`` instead, and
    *absent*. The best path through the slices has the highest sum of scores. A label scores its
    expected Dice, lowered if CLIP prefers another candidate, plus ``continuity`` times its Dice
    with the label of the next slice. *Absent* scores ``task.min_confidence``; if that is 0, a slice
    with a candidate is never left empty. Up to ``fill_gaps`` consecutive slices without a label
    get masks that are interpolated between their neighbours.

    Slices in different shards (``run.rows_per_shard``), or more than ``fill_gaps`` missing slices
    apart, are chosen separately. Single images are labelled as without this section.
    """

    consistent: bool = False
    continuity: Annotated[float, Field(ge=0.0)] = 0.2
    fill_gaps: Annotated[int, Field(ge=0, le=16)] = 2
