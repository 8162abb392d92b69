"""The baselines of SaLIP, on the same images in the same run.

Un-prompted SAM uses neither text nor reference: of the candidates that passed the area filter it
takes the k of highest predicted IoU (``unprompted_confident``) or the k largest
(``unprompted_largest``). It cannot know which candidate is which organ, so classes of the same
``top_k`` get the same candidates. GT-SAM (``gt_sam``) prompts SAM with boxes of the reference: the
upper bound for any retrieval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from salip_ray.cascade.geometry import (
    box_to_working,
    closest,
    contour_boxes,
    overlap,
    reference_boxes,
    to_working_mask,
    union_of,
)
from salip_ray.cascade.instances import instances_of
from salip_ray.cascade.interfaces import Refiner
from salip_ray.cascade.refiner import own_masks, refine_boxes
from salip_ray.config import ClassSpec, RefineConfig
from salip_ray.schema import Box, Candidate, ClassMask, Mask, ProposedMask, SamScores, Size

_RANKINGS: dict[str, Callable[[Candidate], float]] = {
    "unprompted_confident": lambda candidate: candidate.predicted_iou,
    "unprompted_largest": lambda candidate: candidate.area,
}


def unprompted(
    classes: Sequence[ClassSpec], candidates: Sequence[Candidate], original_size: Size
) -> list[ClassMask]:
    """Return both un-prompted labels of every class: unions of k candidates' own masks.

    Without candidates there is no label. Of equal candidates the lower id wins.
    """
    masks: list[ClassMask] = []
    for method, merit in _RANKINGS.items() if candidates else ():
        ranked = sorted(candidates, key=lambda candidate: (-merit(candidate), candidate.id))
        for spec in classes:
            chosen = ranked[: spec.most(len(ranked))]
            united = own_masks(chosen, RefineConfig(), original_size)
            if not united.union.any():
                continue
            masks.append(
                ClassMask(
                    method=method,
                    label=spec.label,
                    class_id=spec.class_id,
                    mask=united.union,
                    sam=SamScores(
                        float(np.mean([c.predicted_iou for c in chosen])),
                        float(np.mean([c.stability_score for c in chosen])),
                    ),
                    candidate_ids=tuple(c.id for c in chosen),
                    instances=instances_of(united, candidate_ids=[c.id for c in chosen]),
                )
            )
    return masks


def gt_sam(
    classes: Sequence[ClassSpec],
    refiner: Refiner,
    embedding: Any,
    references: Mapping[str, Mask],
    candidates: Sequence[Candidate] = (),
    config: RefineConfig = RefineConfig(),  # noqa: B008  (frozen)
    *,
    working_size: Size,
    original_size: Size,
) -> list[ClassMask]:
    """Prompt SAM with the boxes of the references; return one mask per class.

    A class has no mask if its reference is missing, empty, or has only parts too small for a box.
    ``proposed`` of each mask is the union of the best candidates, so that an evaluation can tell a
    bad proposal from a wrong pick.

    Args:
        classes: of the task.
        refiner: the box-prompted SAM.
        embedding: of the working image; for SAM [1, C, h, w].
        references: bool [H, W] of the original size, by label.
        candidates: those that passed the area filter.
        config: ``gt_boxes`` and ``resolution`` are used.
        working_size: height, width.
        original_size: height, width.
    """
    masks = []
    for spec in classes:
        reference = references.get(spec.label)
        boxes = _prompt_boxes(reference, config, original_size, working_size)
        if not boxes:
            continue
        refined = refine_boxes(
            refiner,
            embedding,
            boxes,
            config,
            working_size=working_size,
            original_size=original_size,
        )
        if reference is None or not refined.union.any():
            continue
        most = spec.most(len(candidates))
        best = closest(candidates, to_working_mask(reference, working_size), most)
        proposed = union_of(best, original_size)
        masks.append(
            ClassMask(
                method="gt_sam",
                label=spec.label,
                class_id=spec.class_id,
                mask=refined.union,
                sam=SamScores(float(refined.predicted_iou.mean()), float(refined.stability.mean())),
                prompt_boxes=tuple(boxes),
                proposed=ProposedMask(proposed, overlap(proposed, refined.union)),
                instances=instances_of(refined),
            )
        )
    return masks


def _prompt_boxes(
    reference: Mask | None, config: RefineConfig, original_size: Size, working_size: Size
) -> list[Box]:
    """Return the boxes of a reference on the working image, by ``gt_boxes``."""
    if reference is None:
        return []
    if config.gt_boxes == "first_two_contours":
        return contour_boxes(reference, working_size)
    boxes = reference_boxes(reference)
    return [box_to_working(box, original_size, working_size) for box in boxes]
