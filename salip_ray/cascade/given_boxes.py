"""Candidates from boxes or points that are given: step 1 to 4 for a job with prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from salip_ray.cascade.geometry import box_to_working, points_to_working
from salip_ray.config import ClassSpec
from salip_ray.schema import Box, Candidate, ClipScores, Points, Selection, Size


def given_candidates(
    prompts: Sequence[tuple[str, Box | Points]],
    classes: Sequence[ClassSpec],
    *,
    working_size: Size,
    original_size: Size,
) -> tuple[tuple[Candidate, ...], tuple[Selection, ...]]:
    """Return a candidate for each prompt, and all of them as selections of their classes.

    The mask of a candidate is its box, or the pixels of its points. It has no scores (NaN): no
    model proposed it.

    Args:
        prompts: class, and box (xyxy, inclusive) or points, on the original image.
        classes: of the task.
        working_size: height, width.
        original_size: height, width.
    """
    height, width = working_size
    candidates = []
    for number, (_, given) in enumerate(prompts):
        mask = np.zeros(working_size, np.bool_)
        points: Points | None = None
        if isinstance(given, Points):
            points = points_to_working(given, original_size, working_size)
            placed = points.box
            for x, y in points.inside:
                mask[round(y), round(x)] = True
        else:
            placed = box_to_working(given, original_size, working_size)
            left, top, right, bottom = map(round, placed)
            mask[top : bottom + 1, left : right + 1] = True
        x0, y0, x1, y1 = placed
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
                points=points,
            )
        )
    selections = []
    for spec in classes:
        own = [number for number, (label, _) in enumerate(prompts) if label == spec.label]
        selections += [
            Selection(spec.label, spec.class_id, number, rank, ClipScores(math.nan))
            for rank, number in enumerate(own)
        ]
    return tuple(candidates), tuple(selections)
