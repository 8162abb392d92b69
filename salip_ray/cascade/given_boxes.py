"""Candidates from boxes that are given: step 1 to 4 for a job with prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from salip_ray.cascade.geometry import box_to_working
from salip_ray.config import ClassSpec
from salip_ray.schema import Box, Candidate, ClipScores, Selection, Size


def given_candidates(
    boxes: Sequence[tuple[str, Box]],
    classes: Sequence[ClassSpec],
    *,
    working_size: Size,
    original_size: Size,
) -> tuple[tuple[Candidate, ...], tuple[Selection, ...]]:
    """Return a candidate for each box, and all of them as selections of their classes.

    The mask of a candidate is its box. It has no scores (NaN): no model proposed it.

    Args:
        boxes: class and box, xyxy and inclusive, on the original image.
        classes: of the task.
        working_size: height, width.
        original_size: height, width.
    """
    height, width = working_size
    candidates = []
    for number, (_, box) in enumerate(boxes):
        x0, y0, x1, y1 = placed = box_to_working(box, original_size, working_size)
        mask = np.zeros(working_size, np.bool_)
        mask[round(y0) : round(y1) + 1, round(x0) : round(x1) + 1] = True
        candidates.append(
            Candidate(
                id=number,
                mask=mask,
                area=int(np.count_nonzero(mask)),
                box=placed,
                predicted_iou=math.nan,
                stability_score=math.nan,
                point=((x0 + x1) / 2, (y0 + y1) / 2),
                crop_box=(0.0, 0.0, width - 1.0, height - 1.0),
            )
        )
    selections = []
    for spec in classes:
        own = [number for number, (label, _) in enumerate(boxes) if label == spec.label]
        selections += [
            Selection(spec.label, spec.class_id, number, rank, ClipScores(math.nan))
            for rank, number in enumerate(own)
        ]
    return tuple(candidates), tuple(selections)
