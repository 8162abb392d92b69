"""The cascade on one image: propose, retrieve, refine, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from segment_anything.modeling import Sam

from salip_ray.cascade.compose import compose
from salip_ray.cascade.geometry import check_image, make_working
from salip_ray.cascade.given import with_given
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
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.config import Config
from salip_ray.errors import ImageError, InputError
from salip_ray.models.registry import needs_refiner, shares_embedding
from salip_ray.models.task_check import require_taught_classes
from salip_ray.schema import Candidate, ClassMask, Image, Mask, Outcome, Selection, Size

if TYPE_CHECKING:
    import torch

    from salip_ray.models.clip.load import ClipModel

    Device = str | torch.device | None


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
        self,
        image: Image,
        *,
        references: Mapping[str, Mask] | None = None,
        candidates: Sequence[Mask] = (),
    ) -> CascadeResult:
        """Label one image.

        Args:
            image: uint8 RGB, [H, W, 3].
            references: the reference mask of each class, bool [H, W], by label; needed if
                ``run.modes`` has ``gt_sam``.
            candidates: masks of single objects made elsewhere, bool [H, W], not empty. CLIP ranks
                them with the proposed ones; their ids are -1, -2, ...

        Raises:
            ImageError: the array is not such an image, or a reference or candidate has another
                size.
            InputError: ``run.modes`` has ``gt_sam`` and there are no references.
        """
        check_image(image)
        original_size = image.shape[0], image.shape[1]
        if references is None and "gt_sam" in self.config.run.modes:
            raise InputError("run.modes has gt_sam, which needs references, found None")
        working = make_working(image, self.config.image)
        proposals = self._with_given(self.propose(working), candidates, working, original_size)
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

    def _with_given(
        self, proposals: Proposals, given: Sequence[Mask], working: Image, original_size: Size
    ) -> Proposals:
        if len(given) and self.retrieve is None:
            raise InputError("candidates need a retriever, and this cascade has none")
        for number, mask in enumerate(given, start=1):
            if not isinstance(mask, np.ndarray):
                kind = type(mask).__name__
                raise ImageError(f"candidate {number} must be a NumPy array [H, W], found {kind}")
            if mask.shape != original_size or not mask.any():
                raise ImageError(
                    f"candidate {number} has the shape {mask.shape} and {np.count_nonzero(mask):,} "
                    f"pixels: it must be a mask of the image, {original_size}, that is not empty"
                )
        size = working.shape[0], working.shape[1]
        return with_given(proposals, given, self.config, size, original_size)

    def _embedding(self, proposals: Proposals, working: Image) -> Any:
        if self.refine is None:
            return None
        if self._shares and proposals.embedding is not None:
            return proposals.embedding
        return self.refine.encode(working)


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
    from salip_ray.cascade.loading import load_proposer

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
    from salip_ray.cascade.loading import load_retriever

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
        encoder: load SAM's encoder too, as the proposer may give no embedding that SAM can use.
    """
    if isinstance(given, SamRefiner | RefinerOf):
        return given
    if given is not None:
        return RefinerOf(given, config)
    if sam is not None and config.refine.model == "sam" and config.refine.sam is None:
        return SamRefiner(sam, config)
    from salip_ray.cascade.loading import load_refiner, load_sam_refiner

    if encoder and config.refine.model == "sam":
        return load_sam_refiner(config, device, decoder_only=False)
    return load_refiner(config, device)
