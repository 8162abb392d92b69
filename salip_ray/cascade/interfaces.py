"""What the three steps of the cascade must be able to do: the places where another model fits.

:class:`~salip_ray.cascade.proposer.Proposer`, :class:`~salip_ray.cascade.retriever.Retriever` and
:class:`~salip_ray.cascade.refiner.Refiner` are SAM's and CLIP's; give others of your own to
:class:`salip_ray.Cascade`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from salip_ray.schema import Box, Candidate, Image, Selection

if TYPE_CHECKING:
    from salip_ray.cascade.proposer import Proposals
    from salip_ray.cascade.refiner import RefinedMasks


class ProposesParts(Protocol):
    """Step 1 and 2."""

    def __call__(self, working: Image) -> Proposals:
        """Candidates of a working image, uint8 RGB [H, W, 3], and its embedding."""


class SelectsCandidates(Protocol):
    """Step 4."""

    def __call__(self, working: Image, candidates: Sequence[Candidate]) -> tuple[Selection, ...]:
        """The candidates retrieved for each class, in the order of the classes, best first."""

    def scores(self, working: Image, candidates: Sequence[Candidate]) -> Tensor:
        """The score of every candidate for every class, [n, n_classes]; for people to look at."""


class SegmentsBoxes(Protocol):
    """Step 5."""

    def encode(self, working: Image) -> Tensor:
        """The embedding [1, C, h, w] that the boxes are segmented on."""

    def __call__(
        self,
        embedding: Tensor,
        *,
        boxes: Sequence[Box],
        working_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> RefinedMasks:
        """One mask of ``original_size`` for each box, xyxy on the working image."""
