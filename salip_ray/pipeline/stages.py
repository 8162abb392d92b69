"""The stages PROPOSE, RETRIEVE and REFINE: one model each, and the columns that they add.

Stages of one actor share a :class:`Row` of Python objects; only what another actor needs is packed
into columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from salip_ray.config import Config
from salip_ray.output.masks import encode_png, label_map
from salip_ray.pipeline import columns
from salip_ray.schema import Candidate, Image, Mask, Outcome, Selection

if TYPE_CHECKING:
    from torch import Tensor

    from salip_ray.cascade.cascade import CascadeMasks

BLANK = "the slice is blank"


class Row:
    """One image in an actor.

    Attributes that an earlier stage of the same actor has not set are unpacked from the cells.
    """

    result: CascadeMasks

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

    @cached_property
    def embedding(self) -> Tensor:
        """The working image's embedding, float32 [1, C, h, w]."""
        import torch

        return torch.from_numpy(columns.unpack_embedding(self.cells))

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

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the original image."""
        return self.cells["height"].as_py(), self.cells["width"].as_py()


class Stage(ABC):
    """One step of the cascade, with its model.

    Attributes:
        name: of the stage, in errors and timings.
        adds: columns that it adds for the output.
        passes: columns that it adds for later stages in other actors.
        drops: columns that no later stage needs.
        batch_size: how many points, crops or boxes of one image are done at once.
    """

    name: str
    adds: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    batch_size: int

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def use_batches(self, size: int) -> None:
        """Do ``size`` points, crops or boxes at once from now on."""

    @abstractmethod
    def work(self, row: Row) -> Mapping[str, Any]:
        """Return the attributes of the row that this stage computes."""

    def pack(self, row: Row) -> dict[str, Any]:  # noqa: ARG002
        """Return the cells of ``adds``, and the row's final status if this stage decides it."""
        return {}

    def pack_for_others(self, row: Row) -> dict[str, Any]:  # noqa: ARG002
        """Return the cells of ``passes``."""
        return {}

    def pack_blank(self, row: Row) -> dict[str, Any]:  # noqa: ARG002
        """Return the cells of a blank slice, which no stage works on."""
        return {}


def _encodes_again(config: Config) -> bool:
    """Return True if the refiner has its own weights and cannot use the proposer's embedding."""
    return config.refine.sam is not None


class Propose(Stage):
    """Propose candidates with SAM, and keep the embedding of the image."""

    name = "propose"
    adds = ("n_candidates",)
    passes = ("_n_proposed", "_candidates", "_embedding", "_embedding_size")

    def __init__(self, config: Config) -> None:
        from salip_ray.models.loading import load_proposer

        super().__init__(config)
        self.batch_size = config.propose.points_per_batch
        pixels_are_needed = "cascade" in config.run.modes or _encodes_again(config)
        self.drops = () if pixels_are_needed else ("_working",)
        self.propose = load_proposer(config)

    def use_batches(self, size: int) -> None:
        """Do ``size`` points at once from now on."""
        self.propose.set_batch_size(size)

    def work(self, row: Row) -> Mapping[str, Any]:
        """Propose candidates."""
        proposals = self.propose(row.working)
        return {
            "candidates": proposals.candidates,
            "n_proposed": proposals.n_proposed,
            "embedding": proposals.embedding,
        }

    def pack(self, row: Row) -> dict[str, Any]:
        """Return the number of candidates."""
        return {"n_candidates": len(row.candidates)}

    def pack_for_others(self, row: Row) -> dict[str, Any]:
        """Return candidates and embedding."""
        cells: dict[str, Any] = {
            "_n_proposed": row.n_proposed,
            "_candidates": columns.pack_candidates(row.candidates),
        }
        if not _encodes_again(self.config):
            cells |= columns.pack_embedding(row.embedding.float().cpu().numpy())
        return cells


class Retrieve(Stage):
    """Select candidates for each class with CLIP; only if ``cascade`` is a mode."""

    name = "retrieve"
    passes = ("_selections",)

    def __init__(self, config: Config) -> None:
        from salip_ray.models.loading import load_retriever

        super().__init__(config)
        self.batch_size = config.retrieve.batch_size
        self.drops = () if _encodes_again(config) else ("_working",)
        self.retrieve = load_retriever(config)

    def use_batches(self, size: int) -> None:
        """Do ``size`` crops at once from now on."""
        self.retrieve.set_batch_size(size)

    def work(self, row: Row) -> Mapping[str, Any]:
        """Select candidates."""
        return {"selections": self.retrieve(row.working, row.candidates)}

    def pack_for_others(self, row: Row) -> dict[str, Any]:
        """Return the selections."""
        return {"_selections": columns.pack_selections(row.selections)}


class Refine(Stage):
    """Segment the retrieved boxes with SAM, add the baselines, and pack the result."""

    name = "refine"
    adds = ("outcomes", "masks", "ranking", "_png")
    drops = ("_working", "_working_size", "_references", *Propose.passes, *Retrieve.passes)

    def __init__(self, config: Config) -> None:
        from salip_ray.models.loading import load_refiner

        super().__init__(config)
        self.batch_size = config.refine.batch_size
        self.refine = load_refiner(config)

    def use_batches(self, size: int) -> None:
        """Do ``size`` boxes at once from now on."""
        self.refine.set_batch_size(size)

    def work(self, row: Row) -> Mapping[str, Any]:
        """Make the class masks."""
        from salip_ray.cascade.cascade import compose

        reuse = not _encodes_again(self.config)
        result = compose(
            self.config,
            self.refine,
            candidates=row.candidates,
            n_proposed=row.n_proposed,
            embedding=row.embedding if reuse else self.refine.encode(row.working),
            selections=row.selections,
            working_size=row.working_size,
            original_size=row.size,
            references=row.references,
        )
        return {"result": result}

    def pack(self, row: Row) -> dict[str, Any]:
        """Return masks, label map and final status."""
        result, classes = row.result, len(self.config.task.classes)
        return {
            "status": "ok" if _is_labelled(result, self.config) else "empty",
            "outcomes": columns.pack_outcomes(result.outcomes),
            "masks": columns.pack_masks(result.masks),
            "ranking": columns.pack_ranking(row.candidates, row.selections),
            "_png": encode_png(label_map(result.masks, *row.size, n_classes=classes)),
        }

    def pack_blank(self, row: Row) -> dict[str, Any]:
        """Return a label map of background, and the reason."""
        classes = self.config.task.classes
        outcomes = [Outcome(spec.label, "empty", BLANK) for spec in classes]
        return {
            "outcomes": columns.pack_outcomes(outcomes),
            "masks": [],
            "n_candidates": 0,
            "ranking": [],
            "_png": encode_png(label_map((), *row.size, n_classes=len(classes))),
        }


def _is_labelled(result: CascadeMasks, config: Config) -> bool:
    """Return True if the cascade labelled a class, or, if it is no mode, any method did."""
    if "cascade" in config.run.modes:
        return any(outcome.outcome == "labelled" for outcome in result.outcomes)
    return bool(result.masks)


STAGES: dict[str, type[Stage]] = {"propose": Propose, "retrieve": Retrieve, "refine": Refine}


def stages_of(config: Config) -> dict[str, type[Stage]]:
    """Return the stages that a configuration needs, in order: only ``cascade`` needs RETRIEVE."""
    if "cascade" in config.run.modes:
        return STAGES
    return {name: stage for name, stage in STAGES.items() if name != "retrieve"}
