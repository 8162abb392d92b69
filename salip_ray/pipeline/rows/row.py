"""One image in an actor, as Python objects that its stages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from salip_ray.config import Config
from salip_ray.pipeline.rows import columns
from salip_ray.schema import Candidate, Image, Mask, Selection

if TYPE_CHECKING:
    from salip_ray.cascade.interfaces import Embedding, Proposals


class Row:
    """One image in an actor.

    Attributes that an earlier stage of the same actor has not set are unpacked from the cells.
    """

    def __init__(self, cells: Mapping[str, pa.Scalar]) -> None:
        self.cells = cells
        self.status: str = cells["status"].as_py()
        self.image_id: str = cells["image_id"].as_py() if "image_id" in cells else "-"

    @cached_property
    def working(self) -> Image:
        """The working image, uint8 RGB [h, w, 3]."""
        return columns.unpack_working(self.cells)

    @cached_property
    def candidates(self) -> Sequence[Candidate]:
        """The candidates that passed the area filter."""
        return columns.unpack_candidates(self.cells)

    @cached_property
    def n_proposed(self) -> int:
        """The number of candidates before the area filter."""
        return int(self.cells["_n_proposed"].as_py())

    def use_prompts(self, config: Config) -> None:
        """Set candidates and selections from the boxes that are given for the image."""
        from salip_ray.cascade.given import given_candidates

        boxes = columns.unpack_prompts(self.cells)
        self.candidates, self.selections = given_candidates(
            boxes, config.task.classes, working_size=self.working_size, original_size=self.size
        )
        self.n_proposed = len(boxes)

    def set_proposals(self, proposals: Proposals, config: Config) -> None:
        """Set candidates from proposals, and from those that are given for the image."""
        from salip_ray.cascade.given import with_given

        given = [item for _, item in columns.unpack_prompts(self.cells)]
        both = with_given(proposals, given, config, self.working_size, self.size)
        self.candidates, self.n_proposed = both.candidates, both.n_proposed

    @cached_property
    def embedding(self) -> Embedding | None:
        """The working image's embedding; SAM's is float32 [1, C, h, w]."""
        return columns.unpack_embedding(self.cells)

    @cached_property
    def selections(self) -> Sequence[Selection]:
        """The candidates retrieved for each class."""
        return columns.unpack_selections(self.cells)

    @cached_property
    def references(self) -> Mapping[str, Mask]:
        """The reference mask of each class, bool [H, W]."""
        return columns.unpack_references(self.cells)

    @cached_property
    def working_size(self) -> tuple[int, int]:
        """Height and width of the working image."""
        height, width = self.cells["_working_size"].as_py()
        return height, width

    @property
    def is_slice(self) -> bool:
        """True if the image is a slice of a volume."""
        return "volume" in self.cells and self.cells["volume"].is_valid

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the original image."""
        return self.cells["height"].as_py(), self.cells["width"].as_py()
