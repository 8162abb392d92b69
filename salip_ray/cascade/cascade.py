"""The cascade on one image: propose, retrieve, refine, and the baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from segment_anything.modeling import Sam

from salip_ray.cascade.baselines import gt_sam, unprompted
from salip_ray.cascade.confidence import expected_dice
from salip_ray.cascade.geometry import check_image, make_working, overlap, union_of
from salip_ray.cascade.interfaces import (
    OwnProposer,
    OwnRefiner,
    OwnRetriever,
    Proposals,
    Proposer,
    Refiner,
    Retriever,
)
from salip_ray.cascade.own_models import ProposerOf, RefinerOf, RetrieverOf
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.refiner import Prompt, SamRefiner, own_masks, prompts_for, refine
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.config import Config
from salip_ray.errors import ConfigError, ImageError, InputError
from salip_ray.models.registry import needs_refiner, shares_embedding
from salip_ray.models.task_check import require_taught_classes, untaught_classes
from salip_ray.schema import (
    Candidate,
    ClassMask,
    Image,
    Mask,
    Outcome,
    ProposedMask,
    SamScores,
    Selection,
    Size,
)
from salip_ray.wording import counted

if TYPE_CHECKING:
    import torch

    from salip_ray.models.clip.load import ClipModel

    Device = str | torch.device | None


@dataclass(frozen=True)
class CascadeMasks:
    """The class masks of every method in ``run.modes``, and the outcome of each class."""

    masks: tuple[ClassMask, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class CascadeResult:
    """The result of the cascade on one image.

    Attributes:
        height: of the image, in pixels.
        width: of the image, in pixels.
        candidates: those that passed the area filter, on the working image.
        n_proposed: number of candidates before the area filter.
        selections: candidates retrieved for each class.
        masks: masks of the image's size, for every method in ``run.modes``.
        outcomes: one per class; none if ``run.modes`` does not have ``cascade``.
    """

    height: int
    width: int
    candidates: tuple[Candidate, ...]
    n_proposed: int
    selections: tuple[Selection, ...]
    masks: tuple[ClassMask, ...]
    outcomes: tuple[Outcome, ...]


class Cascade:
    """Label single images with SaLIP, in this process.

    Args:
        config: a job's configuration (:func:`salip_ray.load_config`); pools and shards are ignored.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; by default ``run.device``.
        sam: a SAM to use instead of the configured one.
        clip: a CLIP to use instead of the configured one.
        propose: a proposer to use instead of the configured one.
        retrieve: a retriever to use instead of the configured one.
        refine: a refiner to use instead of the configured one. It gets the proposer's embedding, or
            its own (``encode``) if there is none or ``refine.sam`` is set.

    :mod:`salip_ray.cascade.interfaces` describes what your own model must do.

    Raises:
        WeightsError: a checkpoint is missing, altered or of another model.
        ConfigError: the configuration names an unknown model, a CUDA device that does not exist, or
            a class that the bundled CLIP was not taught.
        ModelError: the model of another package cannot be built.

    Examples:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from salip_ray import Cascade, load_config
        >>> cascade = Cascade(load_config("lungs"))
        >>> image = np.asarray(Image.open("xrays/chest_xray-0000.png").convert("RGB"))
        >>> result = cascade(image)  # uint8 RGB [H, W, 3] in, masks of the same size out
        >>> [(mask.label, mask.mask.shape == image.shape[:2]) for mask in result.masks]
        [('lungs', True)]
    """

    def __init__(
        self,
        config: Config,
        *,
        device: Device = None,
        sam: Sam | None = None,
        clip: ClipModel | None = None,
        propose: OwnProposer | None = None,
        retrieve: OwnRetriever | None = None,
        refine: OwnRefiner | None = None,
    ) -> None:
        self.config = config
        self.propose = _proposer(config, propose, sam, device)
        self.retrieve: Retriever | None = None
        labels = isinstance(self.propose, ProposerOf) and self.propose.labels
        if "cascade" in config.run.modes and not labels:
            self.retrieve = _retriever(config, retrieve, clip, device)
        self.refine: Refiner | None = None
        own = propose is not None or refine is not None
        if refine is not None or needs_refiner(config):
            shared = self.propose.sam if isinstance(self.propose, SamProposer) else sam
            self.refine = _refiner(config, refine, shared, device, encoder=propose is not None)
        # Objects of the caller need not name the kind of their embedding.
        self._shares = config.refine.sam is None if own else shares_embedding(config)

    def __call__(
        self, image: Image, *, references: Mapping[str, Mask] | None = None
    ) -> CascadeResult:
        """Label one image.

        Args:
            image: uint8 RGB, [H, W, 3].
            references: the reference mask of each class, bool [H, W], by label; needed if
                ``run.modes`` has ``gt_sam``.

        Raises:
            ImageError: the array is not such an image, or a reference has another size.
            InputError: ``run.modes`` has ``gt_sam`` and there are no references.
        """
        check_image(image)
        original_size = image.shape[0], image.shape[1]
        if references is None and "gt_sam" in self.config.run.modes:
            raise InputError("run.modes has gt_sam, which needs references, found None")
        working = make_working(image, self.config.image)
        proposals = self.propose(working)
        selections = proposals.selections or ()
        if self.retrieve is not None:
            selections = self.retrieve(working, proposals.candidates)
        result = compose(
            self.config,
            self.refine,
            candidates=proposals.candidates,
            n_proposed=proposals.n_proposed,
            embedding=self._embedding(proposals, working),
            selections=selections,
            working_size=(working.shape[0], working.shape[1]),
            original_size=original_size,
            references=references,
        )
        return CascadeResult(
            height=original_size[0],
            width=original_size[1],
            candidates=proposals.candidates,
            n_proposed=proposals.n_proposed,
            selections=selections,
            masks=result.masks,
            outcomes=result.outcomes,
        )

    def _embedding(self, proposals: Proposals, working: Image) -> Any:
        if self.refine is None:
            return None
        if self._shares and proposals.embedding is not None:
            return proposals.embedding
        return self.refine.encode(working)


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
        # The calibration does not hold for a class that CLIP was not taught.
        uncalibrated = untaught_classes(config) if config.clip.allow_untaught else ()
        present = [s for s in selections if _is_present(s, config)]
        for spec in config.task.classes:
            chosen = [choice for choice in present if choice.class_id == spec.class_id]
            if not chosen:
                refused = [s for s in selections if s.class_id == spec.class_id]
                reason = _why_none(spec.label, n_proposed, len(candidates), refused, config)
                outcomes.append(Outcome(spec.label, "empty", reason))
                continue
            retrieved = [by_id[choice.candidate_id] for choice in chosen]
            prompts: tuple[Prompt, ...] = ()
            if refiner is None:
                refined = own_masks(retrieved, config.refine, original_size)
            else:
                prompts = prompts_for(
                    retrieved,
                    [by_id[s.candidate_id] for s in present if s.class_id != spec.class_id],
                    config.refine,
                )
                refined = refine(refiner, embedding, prompts, config.refine, **sizes)
            if not refined.union.any():
                whose = "SAM's" if isinstance(refiner, SamRefiner) else "the refiner's"
                reason = f"{whose} mask from the retrieved boxes is empty"
                outcomes.append(Outcome(spec.label, "empty", reason))
                continue
            proposed = union_of(retrieved, original_size)
            agreement = overlap(proposed, refined.union)
            predicted_iou = float(np.mean(refined.predicted_iou))
            stability = float(np.mean(refined.stability))
            confidence: float | None = None
            # A mask that no model scored has no estimate either.
            scored = refiner is not None and not math.isnan(predicted_iou)
            if scored and spec.label not in uncalibrated:
                confidence = expected_dice(
                    predicted_iou, stability, agreement, [choice.clip for choice in chosen]
                )
            # Only the softmax tells whether the class is there; presets with cosines label all.
            limit = config.task.min_confidence if config.retrieve.scoring == "softmax" else 0.0
            if confidence is not None and confidence < limit:
                reason = (
                    f"its confidence {confidence:.3f} is below task.min_confidence "
                    f"{config.task.min_confidence:g}"
                )
                outcomes.append(Outcome(spec.label, "empty", reason))
                continue
            outcomes.append(Outcome(spec.label, "labelled"))
            masks.append(
                ClassMask(
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
            )
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


# Models are loaded inside these functions, so that importing this module imports no storage client.
def _proposer(
    config: Config, given: OwnProposer | None, sam: Sam | None, device: Device
) -> Proposer:
    if isinstance(given, SamProposer | ProposerOf):
        return given
    if given is not None:
        return ProposerOf(given, config)
    if sam is not None and config.propose.model == "sam":
        return SamProposer(sam, config)
    from salip_ray.models.loading import load_proposer

    return load_proposer(config, device)


def _retriever(
    config: Config, given: OwnRetriever | None, clip: ClipModel | None, device: Device
) -> Retriever:
    if isinstance(given, ClipRetriever | RetrieverOf):
        return given
    if given is not None:
        return RetrieverOf(given, config)
    if clip is not None and config.retrieve.model == "clip":
        return ClipRetriever(clip, config)
    require_taught_classes(config)
    from salip_ray.models.loading import load_retriever

    return load_retriever(config, device)


def _refiner(
    config: Config, given: OwnRefiner | None, sam: Sam | None, device: Device, *, encoder: bool
) -> Refiner:
    """Return a refiner on the proposer's SAM, unless another one is given or configured.

    Args:
        config: the configuration.
        given: by the caller.
        sam: the proposer's SAM.
        device: where to load a model.
        encoder: the proposer's embedding may be none that a SAM can use.
    """
    if isinstance(given, SamRefiner | RefinerOf):
        return given
    if given is not None:
        return RefinerOf(given, config)
    if sam is not None and config.refine.model == "sam" and config.refine.sam is None:
        return SamRefiner(sam, config)
    from salip_ray.models.loading import load_refiner, load_sam_refiner

    if encoder and config.refine.model == "sam":
        return load_sam_refiner(config, device, decoder_only=False)
    return load_refiner(config, device)
