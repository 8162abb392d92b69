"""Make the masks of one class on one image: the retrieved one, and those with a runner-up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from salip_ray.cascade.confidence import expected_dice
from salip_ray.cascade.geometry import overlap, shared_area, to_original, union_of
from salip_ray.cascade.instances import instances_of
from salip_ray.cascade.interfaces import RefinedMasks, Refiner
from salip_ray.cascade.prompts import Prompt, prompts_for
from salip_ray.cascade.refiner import own_masks, refine
from salip_ray.config import ClassSpec, Config
from salip_ray.models.registry import is_prompted
from salip_ray.models.task_check import untaught_classes
from salip_ray.schema import (
    Candidate,
    ClassMask,
    ClipScores,
    ProposedMask,
    SamScores,
    Selection,
    Size,
)


@dataclass(frozen=True)
class RefinedCandidates:
    """Candidates, the prompts made from them, and a mask for each."""

    candidates: tuple[Candidate, ...]
    prompts: tuple[Prompt, ...]
    masks: RefinedMasks

    def replaced(self, position: int, other: RefinedCandidates, index: int) -> RefinedCandidates:
        """Return the same with one candidate exchanged for one of ``other``."""

        def swapped(own: Any, theirs: Any) -> Any:
            parts = [*own[:position], theirs[index], *own[position + 1 :]]
            return tuple(parts) if isinstance(own, tuple) else np.stack(parts)

        names = ("masks", "predicted_iou", "stability")
        return RefinedCandidates(
            swapped(self.candidates, other.candidates),
            swapped(self.prompts, other.prompts) if self.prompts else (),
            RefinedMasks(
                *(swapped(getattr(self.masks, name), getattr(other.masks, name)) for name in names)
            ),
        )


@dataclass(frozen=True)
class ClassLabeller:
    """Make masks of one class on one image; ``rivals`` were retrieved for other classes."""

    spec: ClassSpec
    config: Config
    refiner: Refiner | None
    embedding: Any
    rivals: Sequence[Candidate]
    working_size: Size
    original_size: Size

    def refined(self, candidates: Sequence[Candidate], *, alone: bool = False) -> RefinedCandidates:
        """Refine each candidate; the others are background for it, unless it is ``alone``."""
        config = self.config.refine
        if self.refiner is None:
            return RefinedCandidates(
                tuple(candidates), (), own_masks(candidates, config, self.original_size)
            )
        groups = [[candidate] for candidate in candidates] if alone else [candidates]
        prompts = tuple(
            prompt for group in groups for prompt in prompts_for(group, self.rivals, config)
        )
        masks = refine(
            self.refiner,
            self.embedding,
            prompts,
            config,
            working_size=self.working_size,
            original_size=self.original_size,
        )
        return RefinedCandidates(tuple(candidates), prompts, masks)

    def mask(self, made: RefinedCandidates, clip: Sequence[ClipScores]) -> ClassMask | None:
        """Return the union of refined masks with its scores; None if it is empty."""
        refined = made.masks
        if not refined.union.any():
            return None
        proposed = union_of(made.candidates, self.original_size)
        agreement = overlap(proposed, refined.union)
        predicted_iou = float(np.mean(refined.predicted_iou))
        stability = float(np.mean(refined.stability))
        confidence: float | None = None
        confidences: list[float] = []
        # The calibration holds neither for masks that no model scored, nor for untaught classes.
        scored = self.refiner is not None and not math.isnan(predicted_iou)
        scored = scored and not is_prompted(self.config)  # nothing was proposed to agree with
        if scored and not self._is_untaught():
            confidence = expected_dice(predicted_iou, stability, agreement, clip)
            confidences = self._confidences(made, clip)
        return ClassMask(
            method="cascade",
            label=self.spec.label,
            class_id=self.spec.class_id,
            mask=refined.union,
            sam=SamScores(predicted_iou, stability),
            candidate_ids=tuple(candidate.id for candidate in made.candidates),
            prompt_boxes=tuple(prompt.box for prompt in made.prompts if prompt.box is not None),
            clip=clip[0],
            proposed=ProposedMask(proposed, agreement),
            confidence=confidence,
            instances=instances_of(
                refined,
                candidate_ids=[candidate.id for candidate in made.candidates],
                confidences=confidences,
            ),
        )

    def _confidences(self, made: RefinedCandidates, clip: Sequence[ClipScores]) -> list[float]:
        """Return the confidence of each refined mask alone."""
        refined = made.masks
        return [
            expected_dice(
                float(refined.predicted_iou[number]),
                float(refined.stability[number]),
                overlap(to_original(candidate.mask, self.original_size), refined.masks[number]),
                clip[number : number + 1],
            )
            for number, candidate in enumerate(made.candidates)
        ]

    def _is_untaught(self) -> bool:
        allowed = self.config.clip.allow_untaught
        return allowed and self.spec.label in untaught_classes(self.config)

    def alternatives(
        self, made: RefinedCandidates, chosen: Sequence[Selection], by_id: Mapping[int, Candidate]
    ) -> list[ClassMask]:
        """Return the masks with one runner-up instead of one retrieved candidate.

        There are none if all candidates above a limit are retrieved.
        """
        runners = chosen[0].runners_up
        if not runners or self.spec.top_k == "all":
            return []
        more = self.refined([by_id[runner.candidate_id] for runner in runners], alone=True)
        masks = []
        for position, index in np.ndindex(len(chosen), len(runners)):
            others = [c for n, c in enumerate(made.candidates) if n != position]
            limit = self.config.retrieve.max_overlap
            if any(shared_area(more.candidates[index], other) > limit for other in others):
                continue
            clips = [choice.clip for choice in chosen]
            clips[position] = runners[index].clip(presence=clips[0].presence)
            mask = self.mask(made.replaced(position, more, index), clips)
            masks += [] if mask is None else [mask]
        return masks
