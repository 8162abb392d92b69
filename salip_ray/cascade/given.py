"""Candidates from what is given for an image: boxes, points and masks made elsewhere.

Prompts have a class and are the only candidates (:func:`given_candidates`): steps 1 to 4 are left
out. Candidates have none: they join those that were proposed (:func:`with_given`), and step 3 ranks
all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from salip_ray.cascade.candidates import within_limits
from salip_ray.cascade.geometry import (
    box_to_working,
    mask_window,
    points_to_working,
    to_working_mask,
)
from salip_ray.cascade.interfaces import Proposals
from salip_ray.config import ClassSpec, Config
from salip_ray.schema import (
    Candidate,
    ClipScores,
    Given,
    Image,
    Points,
    Selection,
    Size,
)


class NoProposer:
    """Propose nothing (``propose.model: none``): all candidates are given."""

    def __call__(self, working: Image) -> Proposals:  # noqa: ARG002  (of the interface)
        """Return no candidate."""
        return Proposals((), 0)

    def set_batch_size(self, size: int) -> None:
        """Do nothing: there are no batches."""


def given_candidates(
    prompts: Sequence[tuple[str, Given]],
    classes: Sequence[ClassSpec],
    *,
    working_size: Size,
    original_size: Size,
) -> tuple[tuple[Candidate, ...], tuple[Selection, ...]]:
    """Return a candidate for each prompt, and all of them as selections of their classes.

    The mask of a candidate is the given one, its box, or the pixels of its points. It has no scores
    (NaN): no model proposed it.

    Args:
        prompts: class, and box (xyxy, inclusive), points or mask, on the original image.
        classes: of the task.
        working_size: height, width.
        original_size: height, width.
    """
    candidates = tuple(
        replace(
            _candidate(number, given, working_size, original_size),
            original=given if isinstance(given, np.ndarray) else None,
        )
        for number, (_, given) in enumerate(prompts)
    )
    selections = []
    for spec in classes:
        own = [number for number, (label, _) in enumerate(prompts) if label == spec.label]
        selections += [
            Selection(spec.label, spec.class_id, number, rank, ClipScores(math.nan))
            for rank, number in enumerate(own)
        ]
    return candidates, tuple(selections)


def with_given(
    proposals: Proposals, given: Iterable[Given], config: Config, working: Size, original: Size
) -> Proposals:
    """Return proposals and, behind them, the given candidates within the area limits.

    The ids of given candidates are -1, -2, ... in their order.

    Args:
        proposals: of the image.
        given: boxes (xyxy, inclusive) and masks, bool [H, W], on the original image.
        config: its area limits are used.
        working: height, width of the working image.
        original: height, width.
    """
    made = [
        _candidate(-number, item, working, original) for number, item in enumerate(given, start=1)
    ]
    return replace(
        proposals,
        candidates=(*proposals.candidates, *within_limits(made, config, working)),
        n_proposed=proposals.n_proposed + len(made),
    )


def is_given(candidate: Candidate) -> bool:
    """Return True if a candidate was given next to those that a model proposed."""
    return candidate.id < 0


def _candidate(number: int, given: Given, working_size: Size, original_size: Size) -> Candidate:
    height, width = working_size
    mask = np.zeros(working_size, np.bool_)
    points: Points | None = None
    if isinstance(given, Points):
        points = points_to_working(given, original_size, working_size)
        placed = points.box
        for x, y in points.inside:
            mask[round(y), round(x)] = True
    elif isinstance(given, np.ndarray):
        mask = to_working_mask(given, working_size)
        top, left, bottom, right = mask_window(given)
        box = float(left), float(top), right - 1.0, bottom - 1.0
        placed = box_to_working(box, original_size, working_size)
    else:
        placed = box_to_working(given, original_size, working_size)
        first, top, last, bottom = map(round, placed)
        mask[top : bottom + 1, first : last + 1] = True
    x0, y0, x1, y1 = placed
    return Candidate(
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
