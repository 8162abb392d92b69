"""The last step on one image: class masks from candidates and selections, for every mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salip_ray.cascade.baselines import gt_sam, unprompted
from salip_ray.cascade.class_labels import ClassLabeller
from salip_ray.cascade.given import is_given
from salip_ray.cascade.interfaces import Refiner
from salip_ray.cascade.layers import in_layers
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.cascade.selecting import exclude_each_other
from salip_ray.config import ClassSpec, Config
from salip_ray.errors import ConfigError, ImageError
from salip_ray.models.registry import is_prompted, needs_proposer
from salip_ray.schema import Candidate, ClassMask, Mask, Outcome, Selection, Size
from salip_ray.wording import counted


@dataclass(frozen=True)
class CascadeMasks:
    """The class masks of every method in ``run.modes``, and the outcome of each class.

    ``alternatives`` are further labels of the cascade that a class could have
    (:func:`compose` with ``alternatives``), the retrieved one first, whatever its confidence.
    """

    masks: tuple[ClassMask, ...]
    outcomes: tuple[Outcome, ...]
    alternatives: tuple[ClassMask, ...] = ()


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
    alternatives: bool = False,
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
        alternatives: also make the masks that a class would have with each of its runners-up
            instead of a retrieved candidate. They change no other mask.

    Raises:
        ImageError: a reference has another size than the image, or the masks of all objects of a
            class do not fit in ``image.max_bytes``.
    """
    sizes = {"working_size": working_size, "original_size": original_size}
    masks: list[ClassMask] = []
    outcomes: list[Outcome] = []
    others: list[ClassMask] = []
    if "cascade" in config.run.modes:
        present = [s for s in selections if _is_present(s, config)]
        by_id = {candidate.id: candidate for candidate in candidates}
        for spec in config.task.classes:
            chosen = [choice for choice in present if choice.class_id == spec.class_id]
            if not chosen:
                refused = [s for s in selections if s.class_id == spec.class_id]
                taken = selections if config.task.layered else ()
                of_others = [(s.class_id, by_id[s.candidate_id]) for s in taken]
                reason = _why_none(spec, n_proposed, candidates, of_others, refused, config)
                outcomes.append(Outcome(spec.label, "empty", reason))
                continue
            _require_memory(spec.label, len(chosen), original_size, config)
            rivals = [by_id[s.candidate_id] for s in present if s.class_id != spec.class_id]
            labeller = ClassLabeller(spec, config, refiner, embedding, rivals, **sizes)
            made = labeller.refined([by_id[choice.candidate_id] for choice in chosen])
            mask = labeller.mask(made, [choice.clip for choice in chosen])
            if alternatives:
                others += [mask] if mask is not None else []
                others += labeller.alternatives(made, chosen, by_id)
            reason = _why_withheld(mask, refiner, config)
            if mask is None or reason:
                outcomes.append(Outcome(spec.label, "empty", reason))
                continue
            outcomes.append(Outcome(spec.label, "labelled"))
            masks.append(mask)
        if config.task.layered:
            whole = {mask.label for mask in masks}
            masks = in_layers(masks)
            hidden = whole - {mask.label for mask in masks}
            outcomes = [_hidden(o.label) if o.label in hidden else o for o in outcomes]
    if "unprompted" in config.run.modes:
        proposed = [candidate for candidate in candidates if not is_given(candidate)]
        masks += unprompted(config.task.classes, proposed, original_size)
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
        bounds = gt_sam(
            config.task.classes,
            refiner,
            embedding,
            references,
            candidates,
            config.refine,
            **sizes,
        )
        masks += in_layers(bounds) if config.task.layered else bounds
    return CascadeMasks(tuple(masks), tuple(outcomes), tuple(others))


def _require_memory(label: str, count: int, size: Size, config: Config) -> None:
    """Raise ImageError if the masks of all objects of a class do not fit in ``image.max_bytes``."""
    height, width = size
    needed, limit = count * height * width, config.image.max_bytes
    if count > 1 and needed > limit:
        raise ImageError(
            f"{count:,} objects of {label!r} in {width} x {height} pixels need {needed:,} bytes of "
            f"masks, above image.max_bytes = {limit:,}: raise retrieve.min_score, cut the image "
            "into tiles, or raise the limit"
        )


def _hidden(label: str) -> Outcome:
    return Outcome(label, "empty", "later classes have all of its pixels (task.layered)")


def _why_withheld(mask: ClassMask | None, refiner: Refiner | None, config: Config) -> str:
    """Return why a class is left empty although candidates were retrieved for it, or ""."""
    if mask is None and refiner is None:
        return "the retrieved candidates have no pixel at the size of the image"
    if mask is None:
        whose = "SAM's" if isinstance(refiner, SamRefiner) else "the refiner's"
        return f"{whose} mask from the retrieved boxes is empty"
    if mask.confidence is not None and mask.confidence < config.least_confidence:
        return (
            f"its confidence {mask.confidence:.3f} is below task.min_confidence "
            f"{config.task.min_confidence:g}"
        )
    return ""


def _is_present(selection: Selection, config: Config) -> bool:
    """Return False if the class is less present in the image than ``min_presence``."""
    presence = selection.clip.presence
    return presence is None or not presence < config.retrieve.min_presence


def _why_none(
    spec: ClassSpec,
    n_proposed: int,
    candidates: Sequence[Candidate],
    of_others: Sequence[tuple[int, Candidate]],
    refused: Sequence[Selection],
    config: Config,
) -> str:
    """Return the reason why a class has no candidate.

    ``of_others`` are the candidates that exclude some of the class, with the ids of their classes.
    """
    if refused:
        return (
            f"its presence {refused[0].clip.presence:.3f} is below retrieve.min_presence "
            f"{config.retrieve.min_presence:g}"
        )
    if is_prompted(config):
        return "no prompt is given for it"
    if n_proposed == 0 and not needs_proposer(config):
        return "no candidate is given"
    if n_proposed == 0:
        proposer = "SAM" if config.propose.model == "sam" else "the proposer"
        return f"{proposer} proposed no candidate"
    taken = {candidate.id for _, candidate in of_others}
    left = [candidate for candidate in candidates if candidate.id not in taken]
    if taken and not left:
        return "other classes have all candidates (task.layered)"
    if taken and all(_is_excluded(candidate, spec, of_others) for candidate in left):
        return (
            "the candidates that are left cover those of other classes, or are covered by them "
            "(task.layered)"
        )
    if left and config.retrieve.min_score is not None:
        return (
            f"none of the {counted(len(left), 'candidate')} reaches retrieve.min_score "
            f"{config.retrieve.min_score:g}"
        )
    if left:
        return f"none of the {counted(len(candidates), 'candidate')} is labelled {spec.label!r}"
    return f"none of the {n_proposed} candidates lies within the area limits"


def _is_excluded(
    candidate: Candidate, spec: ClassSpec, of_others: Sequence[tuple[int, Candidate]]
) -> bool:
    """Return whether the class cannot have the candidate because of one that another class has."""
    return any(
        exclude_each_other(candidate, other)
        if spec.class_id < class_id
        else exclude_each_other(other, candidate)
        for class_id, other in of_others
    )
