"""The interfaces of the three model steps, and their results.

A proposer finds candidates, a retriever picks those that match a class, and a refiner segments the
boxes of the picks. :class:`~salip_ray.cascade.proposer.SamProposer`,
:class:`~salip_ray.cascade.retriever.ClipRetriever` and
:class:`~salip_ray.cascade.refiner.SamRefiner` implement them with SAM and CLIP. Pass other
implementations to :class:`salip_ray.Cascade`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from salip_ray.schema import Box, Candidate, Image, Mask, Selection


@dataclass(frozen=True)
class Proposals:
    """The result of a proposer on one working image.

    Attributes:
        candidates: those that passed the area filter, with the ids that they had before it.
        n_proposed: number of candidates before the area filter.
        embedding: embedding of the full view, float32 [1, C, h, w] on the model's device.
    """

    candidates: tuple[Candidate, ...]
    n_proposed: int
    embedding: Tensor


@dataclass(frozen=True)
class RefinedMasks:
    """One mask per box, on the original pixels.

    Attributes:
        masks: bool [n, H, W].
        predicted_iou: float32 [n].
        stability: float32 [n]; NaN (0 / 0) for a mask that is empty at both of its thresholds.
    """

    masks: npt.NDArray[np.bool_]
    predicted_iou: npt.NDArray[np.float32]
    stability: npt.NDArray[np.float32]

    @property
    def union(self) -> Mask:
        """The union of all masks, bool [H, W]."""
        return np.asarray(self.masks.any(axis=0))


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

    def encode(self, working: Image) -> Tensor:
        """Return the embedding [1, C, h, w] of a working image, uint8 RGB [H, W, 3]."""

    def __call__(
        self,
        embedding: Tensor,
        *,
        boxes: Sequence[Box],
        working_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> RefinedMasks:
        """Predict one mask per box.

        Args:
            embedding: [1, C, h, w] of the working image.
            boxes: xyxy, inclusive, in pixels of the working image.
            working_size: height, width.
            original_size: height, width of the masks to return.
        """

    def set_batch_size(self, size: int) -> None:
        """Process ``size`` boxes at a time from now on; results must not depend on it."""
