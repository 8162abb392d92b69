"""The objects of a class: the masks whose union is the mask of the class."""

from __future__ import annotations

from collections.abc import Sequence

from salip_ray.cascade.interfaces import RefinedMasks
from salip_ray.schema import Instance, SamScores


def instances_of(
    refined: RefinedMasks,
    *,
    candidate_ids: Sequence[int] = (),
    confidences: Sequence[float] = (),
) -> tuple[Instance, ...]:
    """Return an instance for each mask that is not empty; none if there is only one such mask.

    Args:
        refined: the masks as they are united, and their scores.
        candidate_ids: the candidate of each mask, if they have any.
        confidences: of each mask, if they are known.
    """
    drawn = [number for number, mask in enumerate(refined.masks) if mask.any()]
    if len(drawn) < 2:
        return ()
    return tuple(
        Instance(
            refined.masks[number],
            candidate_ids[number] if candidate_ids else None,
            SamScores(float(refined.predicted_iou[number]), float(refined.stability[number])),
            confidences[number] if confidences else None,
        )
        for number in drawn
    )
