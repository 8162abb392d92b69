"""The interfaces of the three model steps, and their results.

A proposer finds candidates, a retriever picks those that match a class, and a refiner segments the
boxes of the picks. With SAM and CLIP these are :class:`~salip_ray.cascade.proposer.SamProposer`,
:class:`~salip_ray.cascade.retriever.ClipRetriever` and
:class:`~salip_ray.cascade.refiner.SamRefiner`.

Your own model needs less: see :class:`OwnProposer`, :class:`OwnRetriever` and
:class:`OwnRefiner`. :mod:`salip_ray.cascade.own_models` checks its results and fills in the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salip_ray.config import Config, Precision, TaskConfig
from salip_ray.schema import Box, Candidate, Image, Mask, Selection

#: What an encoder computes of a working image: one tensor, or several by name. Only the family that
#: packs it reads it: between actors its tensors travel as bytes, and arrive on the CPU.
Embedding: TypeAlias = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Proposals:
    """The result of a proposer on one working image.

    Attributes:
        candidates: those that passed the area filter, with the ids that they had before it.
        n_proposed: number of candidates before the area filter.
        embedding: embedding of the full view, for SAM float32 [1, C, h, w] on the model's device.
        selections: candidates of each class, if the proposer labels them; None if a retriever does.
    """

    candidates: tuple[Candidate, ...]
    n_proposed: int
    embedding: Embedding | None = None
    selections: tuple[Selection, ...] | None = None


@dataclass(frozen=True)
class Instances:
    """What your own proposer returns for one working image, its instances in any order.

    Attributes:
        scores: [n], 0 to 1 in general: the confidence in each instance.
        masks: bool [n, H, W] of the working image; None if there are only boxes.
        boxes: [n, 4], xyxy, inclusive; None for the boxes of the masks.
        labels: the class of each instance, by its name in the task; None if a retriever decides.
        stability: [n], 0 to 1: how stable each mask is; None for 1.
        embedding: for a refiner of the same family; None if there is no use for it.

    Arrays may be NumPy's or torch's.

    Example:
        >>> import numpy as np
        >>> from salip_ray import Instances
        >>> found = Instances(scores=np.array([0.9]), boxes=np.array([[4, 4, 20, 30]]))
        >>> found.masks is None
        True
    """

    scores: Any
    masks: Any = None
    boxes: Any = None
    labels: Sequence[str] | None = None
    stability: Any = None
    embedding: Any = None


@dataclass(frozen=True)
class RefinedMasks:
    """One mask per box, on the original pixels.

    Attributes:
        masks: bool [n, H, W].
        predicted_iou: float32 [n]; NaN if the refiner does not estimate it.
        stability: float32 [n]; NaN (0 / 0) for a mask that is empty at both of its thresholds.

    Example:
        >>> import numpy as np
        >>> from salip_ray import RefinedMasks
        >>> refined = RefinedMasks(np.ones((1, 4, 4), bool), np.array([0.9]), np.array([1.0]))
        >>> refined.union.shape
        (4, 4)
    """

    masks: npt.NDArray[np.bool_]
    predicted_iou: npt.NDArray[np.float32]
    stability: npt.NDArray[np.float32]

    @property
    def union(self) -> Mask:
        """The union of all masks, bool [H, W]."""
        return np.asarray(self.masks.any(axis=0))


@dataclass(frozen=True)
class ModelContext:
    """What the factory of a model gets.

    Attributes:
        options: ``options`` of the section (``propose``, ``retrieve`` or ``refine``).
        weights: local paths of the files and folders of the section's ``weights``, by name:
            fetched once per node, and verified.
        task: classes, sentences and distractors.
        device: where the model belongs.
        precision: ``exact`` or ``fast``.
        config: the whole configuration of the job.

    Example:
        >>> from salip_ray import Cascade, Instances, ModelContext, load_config
        >>> class Everything:
        ...     def __init__(self, context: ModelContext) -> None:
        ...         self.score = context.options.get("score", 1.0)
        ...     def __call__(self, working):
        ...         height, width, _ = working.shape
        ...         return Instances([self.score], boxes=[[0, 0, width - 1, height - 1]])
        >>> config = load_config("lungs")
        >>> context = ModelContext({}, {}, config.task, "cpu", "exact", config)
        >>> Cascade(config, propose=Everything(context)).propose.name
        'Everything'
    """

    options: Mapping[str, Any]
    weights: Mapping[str, Path]
    task: TaskConfig
    device: torch.device
    precision: Precision
    config: Config = field(repr=False)


class Proposer(Protocol):
    """Steps 1 and 2: propose candidates and filter them by area."""

    def __call__(self, working: Image) -> Proposals:
        """Propose candidates on a working image, uint8 RGB [H, W, 3]."""

    def set_batch_size(self, size: int) -> None:
        """Process ``size`` points at a time from now on; results must not depend on it."""


class Retriever(Protocol):
    """Steps 3 and 4: show each candidate to CLIP and pick the best of each class."""

    def __call__(self, working: Image, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """Return the candidates retrieved for each class, in class order, best first.

        Args:
            working: the working image, uint8 RGB [H, W, 3].
            candidates: candidates of that image, in any order.
        """

    def scores(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """Return the score of each candidate for each class, float32 [n, n_classes]."""

    def set_batch_size(self, size: int) -> None:
        """Process ``size`` candidates at a time from now on."""


class Refiner(Protocol):
    """Step 5: segment what lies in a box."""

    def encode(self, working: Image) -> Any:
        """Return the embedding of a working image, uint8 RGB [H, W, 3]."""

    def __call__(
        self,
        embedding: Any,
        *,
        boxes: Sequence[Box],
        working_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> RefinedMasks:
        """Predict one mask per box.

        Args:
            embedding: of the working image; for SAM [1, C, h, w].
            boxes: xyxy, inclusive, in pixels of the working image.
            working_size: height, width.
            original_size: height, width of the masks to return.
        """

    def set_batch_size(self, size: int) -> None:
        """Process ``size`` boxes at a time from now on; results must not depend on it."""


class OwnProposer(Protocol):
    """What your own proposer must do.

    Optional attributes of its class, which a job reads before it builds the model:
    ``labels_candidates = True`` if its instances have labels, so that no retriever runs; and
    ``embedding = "NAME"`` if a refiner of the same name takes its embedding. An optional method
    ``set_batch_size(size)`` lets a job halve its batches if memory runs out.
    """

    def __call__(self, working: Image) -> Instances | Proposals:
        """Return the instances in a working image, uint8 RGB [H, W, 3]."""


class OwnRetriever(Protocol):
    """What your own retriever must do. ``set_batch_size(size)`` is optional."""

    def __call__(self, working: Image, candidates: Sequence[Candidate]) -> Any:
        """Return a score of each candidate for each class, [n, n_classes], the higher the better.

        With ``retrieve.scoring: softmax``, further columns for ``task.competitors`` compete.
        """


class OwnRefiner(Protocol):
    """What your own refiner must do. ``encode`` and ``set_batch_size`` are optional.

    ``encode(working)`` returns what the model needs of a working image, uint8 RGB [H, W, 3]; any
    object. It is not called if the proposer has the same ``embedding = "NAME"``.
    """

    def __call__(
        self,
        embedding: Any,
        *,
        boxes: Sequence[Box],
        working_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> Any:
        """Return one mask per box, bool [n, H, W] of ``original_size``, or :class:`RefinedMasks`.

        Args:
            embedding: the result of ``encode``, or the proposer's embedding.
            boxes: xyxy, inclusive, in pixels of the working image; at least one.
            working_size: height, width.
            original_size: height, width of the masks to return.
        """
