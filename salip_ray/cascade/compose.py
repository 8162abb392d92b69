"""The last step on one image: class masks from candidates and selections, for every mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from salip_ray.cascade.baselines import gt_sam, unprompted
from salip_ray.cascade.confidence import expected_dice
from salip_ray.cascade.geometry import overlap, union_of
from salip_ray.cascade.interfaces import Refiner
from salip_ray.cascade.prompts import Prompt, prompts_for
from salip_ray.cascade.refiner import SamRefiner, own_masks, refine
from salip_ray.config import ClassSpec, Config
from salip_ray.errors import ConfigError, ImageError
from salip_ray.models.task_check import untaught_classes
from salip_ray.schema import (
    Candidate,
    ClassMask,
    Mask,
    Outcome,
    ProposedMask,
    SamScores,
    Selection,
    Size,
)
from salip_ray.wording import counted


@dataclass(frozen=True)
class CascadeMasks:
    """The class masks of every method in ``run.modes``, and the outcome of each class."""

    masks: tuple[ClassMask, ...]
    outcomes: tuple[Outcome, ...]


def compose(
    config: Config,
    refiner: Refiner | None,
    *,
    candidates: Sequence[Candidate],
    n_proposed: int,
    embedding: Any,
    selections: Sequence[Selection],
    working_size: Size,
    original_size: Size,
    references: Mapping[str, Mask] | None = None,
) -> CascadeMasks:
    """Make class masks from candidates and selections, for every mode of ``run.modes``.

    Args:
        config: its task, modes and ``refine`` section are used.
        refiner: the box-prompted SAM, or another refiner; None: the candidates' own masks are the
            result.
        candidates: those that passed the area filter.
        n_proposed: number of candidates before the area filter.
        embedding: of the working image, for the refiner; for SAM [1, C, h, w] by its weights.
        selections: candidates retrieved for each class.
        working_size: height, width.
        original_size: height, width of the masks to make.
        references: bool [H, W] by label, for ``gt_sam``; a class without one has no such mask.

    Raises:
        ImageError: a reference has another size than the image.
    """
    sizes = {"working_size": working_size, "original_size": original_size}
    masks: list[ClassMask] = []
    outcomes: list[Outcome] = []
    if "cascade" in config.run.modes:
        by_id = {candidate.id: candidate for candidate in candidates}
        present = [s for s in selections if _is_present(s, config)]
        for spec in config.task.classes:
            chosen = [s for s in present if s.class_id == spec.class_id]
            others = [by_id[s.candidate_id] for s in present if s.class_id != spec.class_id]
            retrieved = [by_id[s.candidate_id] for s in chosen]
            result: ClassMask | str
            if chosen:
                result = _label_class(
                    config, refiner, embedding, spec, chosen, retrieved, others, **sizes
                )
            else:
                refused = [s for s in selections if s.class_id == spec.class_id]
                result = _why_none(spec.label, n_proposed, len(candidates), refused, config)
            if isinstance(result, str):
                outcomes.append(Outcome(spec.label, "empty", result))
            else:
                outcomes.append(Outcome(spec.label, "labelled"))
                masks.append(result)
    if "unprompted" in config.run.modes:
        masks += unprompted(config.task.classes, candidates, original_size)
    if "gt_sam" in config.run.modes:
        references = references or {}
        for label, reference in references.items():
            if reference.shape != original_size:
                raise ImageError(
                    f"the reference of {label!r} has shape {reference.shape}, "
                    f"its image {original_size}"
                )
        if refiner is None:
            raise ConfigError("run.modes has gt_sam, which needs a refiner: set refine.model")
        masks += gt_sam(
            config.task.classes,
            refiner,
            embedding,
            references,
            candidates,
            config.refine,
            **sizes,
        )
    return CascadeMasks(tuple(masks), tuple(outcomes))


def _label_class(
    config: Config,
    refiner: Refiner | None,
    embedding: Any,
    spec: ClassSpec,
    chosen: Sequence[Selection],
    retrieved: Sequence[Candidate],
    others: Sequence[Candidate],
    *,
    working_size: Size,
    original_size: Size,
) -> ClassMask | str:
    """Return the mask of a class, or the reason why it has none.

    ``chosen`` are its selections, at least one, ``retrieved`` their candidates, and ``others`` the
    candidates retrieved for other classes. The rest is as for :func:`compose`.
    """
    prompts: tuple[Prompt, ...] = ()
    if refiner is None:
        refined = own_masks(retrieved, config.refine, original_size)
    else:
        prompts = prompts_for(retrieved, others, config.refine)
        refined = refine(
            refiner,
            embedding,
            prompts,
            config.refine,
            working_size=working_size,
            original_size=original_size,
        )
    if not refined.union.any():
        whose = "SAM's" if isinstance(refiner, SamRefiner) else "the refiner's"
        return f"{whose} mask from the retrieved boxes is empty"
    proposed = union_of(retrieved, original_size)
    agreement = overlap(proposed, refined.union)
    predicted_iou = float(np.mean(refined.predicted_iou))
    stability = float(np.mean(refined.stability))
    confidence: float | None = None
    # The calibration holds neither for masks that no model scored, nor for untaught classes.
    scored = refiner is not None and not math.isnan(predicted_iou)
    if scored and not (config.clip.allow_untaught and spec.label in untaught_classes(config)):
        confidence = expected_dice(
            predicted_iou, stability, agreement, [choice.clip for choice in chosen]
        )
    # Only the softmax tells whether the class is there; presets with cosines label all.
    limit = config.task.min_confidence if config.retrieve.scoring == "softmax" else 0.0
    if confidence is not None and confidence < limit:
        return (
            f"its confidence {confidence:.3f} is below task.min_confidence "
            f"{config.task.min_confidence:g}"
        )
    return ClassMask(
        method="cascade",
        label=spec.label,
        class_id=spec.class_id,
        mask=refined.union,
        sam=SamScores(predicted_iou, stability),
        candidate_ids=tuple(choice.candidate_id for choice in chosen),
        prompt_boxes=tuple(prompt.box for prompt in prompts),
        clip=chosen[0].clip,
        proposed=ProposedMask(proposed, agreement),
        confidence=confidence,
    )


def _is_present(selection: Selection, config: Config) -> bool:
    """Return False if the class is less present in the image than ``min_presence``."""
    presence = selection.clip.presence
    return presence is None or not presence < config.retrieve.min_presence


def _why_none(
    label: str, n_proposed: int, n_within: int, refused: Sequence[Selection], config: Config
) -> str:
    if refused:
        return (
            f"its presence {refused[0].clip.presence:.3f} is below retrieve.min_presence "
            f"{config.retrieve.min_presence:g}"
        )
    if n_proposed == 0:
        proposer = "SAM" if config.propose.model == "sam" else "the proposer"
        return f"{proposer} proposed no candidate"
    if n_within:
        return f"none of the {counted(n_within, 'candidate')} is labelled {label!r}"
    return f"none of the {n_proposed} candidates lies within the area limits"
