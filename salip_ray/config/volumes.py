"""The section ``volumes``: how the slices of a volume are labelled together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from salip_ray.config.base import Section


class VolumesConfig(Section):
    """How the slices of a volume are labelled together.

    With ``consistent``, the label of a class is chosen for the whole stack: each slice has the
    retrieved candidates, those with one of ``retrieve.runners_up`` instead, and nothing, and the
    best path through the slices is taken. A step of it scores the expected Dice of the label, less
    where CLIP prefers another, plus ``continuity`` times the Dice with the next slice. Nothing
    scores ``task.min_confidence``; with 0, a slice with a candidate is never left empty. Up to
    ``fill_gaps`` slices without a label between two with one get a mask between theirs.

    Slices of a volume that lie in different shards are chosen apart (``run.rows_per_shard``).
    Images that are no slices are labelled as without it.
    """

    consistent: bool = False
    continuity: Annotated[float, Field(ge=0.0)] = 0.2
    fill_gaps: Annotated[int, Field(ge=0, le=16)] = 2
