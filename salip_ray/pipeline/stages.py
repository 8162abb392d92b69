"""The stages PROPOSE, RETRIEVE and REFINE: one model each, and the columns that they add.

Stages of one actor share a :class:`Row` of Python objects; only what another actor needs is packed
into columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from salip_ray.config import Config
from salip_ray.models.registry import (
    is_prompted,
    needed,
    needs_proposer,
    needs_refiner,
    needs_retriever,
    shares_embedding,
)
from salip_ray.output.cells import pack_masks, pack_outcomes, pack_ranking
from salip_ray.output.masks import encode_png, label_map
from salip_ray.pipeline.rows import columns
from salip_ray.pipeline.rows.row import Row
from salip_ray.schema import Outcome

if TYPE_CHECKING:
    from salip_ray.cascade.compose import CascadeMasks
    from salip_ray.cascade.interfaces import Refiner

BLANK = "the slice is blank"
_CANDIDATES = ("_n_proposed", "_candidates")


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
    def work(self, row: Row) -> dict[str, Any]:
        """Set the attributes of the row that this stage computes.

        Returns:
            The cells of ``adds``, and the row's final status if this stage decides it.
        """

    def pack(self, row: Row) -> dict[str, Any]:
        """Return the cells of ``passes``; only called if a later stage has another actor."""
        raise NotImplementedError

    def blank(self, _row: Row, /) -> dict[str, Any]:
        """Return the cells of a blank slice, which no stage works on."""
        return {}


class Propose(Stage):
    """Propose candidates, and retain the embedding of the image if REFINE can use it."""

    name = "propose"
    adds = ("n_candidates",)
    passes: tuple[str, ...] = (*_CANDIDATES, "_embedding", "_tensors")

    def __init__(self, config: Config) -> None:
        from salip_ray.cascade.loading import load_proposer

        super().__init__(config)
        self.shares_embedding = shares_embedding(config)
        if not self.shares_embedding:
            self.passes = _CANDIDATES
        if _is_labelling(config):
            self.passes += ("_selections",)
        self.drops = () if needs_retriever(config) or _encodes(config) else ("_working",)
        self.propose = load_proposer(config)
        self.batch_size = _batch_size(self.propose, config.propose.points_per_batch)

    def use_batches(self, size: int) -> None:
        """Do ``size`` points at once from now on."""
        self.propose.set_batch_size(size)

    def work(self, row: Row) -> dict[str, Any]:
        """Propose candidates, and return their number."""
        proposals = self.propose(row.working)
        row.set_proposals(proposals, self.config)
        if self.shares_embedding:
            row.embedding = proposals.embedding
        if proposals.selections is not None:
            row.selections = proposals.selections
        return {"n_candidates": len(row.candidates)}

    def pack(self, row: Row) -> dict[str, Any]:
        """Return candidates, embedding and selections, as far as they are needed."""
        cells = _pack_candidates(row)
        if self.shares_embedding:
            cells |= columns.pack_embedding(row.embedding)
        if "_selections" in self.passes:
            cells["_selections"] = columns.pack_selections(row.selections)
        return cells


class Retrieve(Stage):
    """Select candidates for each class, unless no mode needs it or the proposer labels them."""

    name = "retrieve"
    passes: tuple[str, ...] = ("_selections",)

    def __init__(self, config: Config) -> None:
        from salip_ray.cascade.loading import load_retriever

        super().__init__(config)
        self.drops = () if _encodes(config) else ("_working",)
        self.retrieve = load_retriever(config)
        # Without PROPOSE this is the first stage: all candidates are given.
        self.proposes = not needs_proposer(config)
        if self.proposes:
            self.adds, self.passes = ("n_candidates",), (*_CANDIDATES, *self.passes)
        self.batch_size = _batch_size(self.retrieve, config.retrieve.batch_size)

    def use_batches(self, size: int) -> None:
        """Do ``size`` crops at once from now on."""
        self.retrieve.set_batch_size(size)

    def work(self, row: Row) -> dict[str, Any]:
        """Select candidates; return their number if all of them are given."""
        if self.proposes:
            from salip_ray.cascade.interfaces import Proposals

            row.set_proposals(Proposals((), 0), self.config)
        row.selections = self.retrieve(row.working, row.candidates)
        return {"n_candidates": len(row.candidates)} if self.proposes else {}

    def pack(self, row: Row) -> dict[str, Any]:
        """Return the selections, and the candidates if they are given."""
        cells = _pack_candidates(row) if self.proposes else {}
        return {**cells, "_selections": columns.pack_selections(row.selections)}


class Refine(Stage):
    """Segment the retrieved boxes, add the baselines, and pack the result.

    Without a refiner, candidates' own masks are the result.
    """

    name = "refine"
    adds: tuple[str, ...] = ("outcomes", "masks", "ranking", "_png")
    drops = (
        *("_working", "_working_size", "_references", "_n_proposed", "_candidates"),
        *("_embedding", "_tensors", "_selections", "_prompts"),
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.refine: Refiner | None = None
        self.batch_size = 1
        self.encodes = _encodes(config)
        if _is_consistent(config):
            self.adds += ("_alternatives",)
        self.prompted = is_prompted(config)
        if self.prompted:
            self.adds += ("n_candidates",)
        if needs_refiner(config):
            from salip_ray.cascade.loading import load_refiner

            self.refine = load_refiner(config)
            self.batch_size = _batch_size(self.refine, config.refine.batch_size)

    def use_batches(self, size: int) -> None:
        """Do ``size`` boxes at once from now on."""
        if self.refine is not None:
            self.refine.set_batch_size(size)

    def work(self, row: Row) -> dict[str, Any]:
        """Make the class masks; return them, the label map and the final status."""
        from salip_ray.cascade.compose import compose

        cells: dict[str, Any] = {}
        if self.prompted:
            row.use_prompts(self.config)
            cells["n_candidates"] = len(row.candidates)
        embedding: Any = None
        if self.refine is not None and (row.candidates or not self.prompted or row.references):
            embedding = self.refine.encode(row.working) if self.encodes else row.embedding
        result = compose(
            self.config,
            self.refine,
            candidates=row.candidates,
            n_proposed=row.n_proposed,
            embedding=embedding,
            selections=row.selections,
            working_size=row.working_size,
            original_size=row.size,
            references=row.references,
            alternatives=_is_consistent(self.config) and row.is_slice,
        )
        if "_alternatives" in self.adds:
            cells["_alternatives"] = pack_masks(result.alternatives)
        classes = len(self.config.task.classes)
        return {
            **cells,
            "status": "ok" if _is_labelled(result, self.config) else "empty",
            "outcomes": pack_outcomes(result.outcomes),
            "masks": pack_masks(result.masks),
            "ranking": pack_ranking(row.candidates, row.selections),
            "_png": encode_png(label_map(result.masks, *row.size, n_classes=classes)),
        }

    def blank(self, row: Row, /) -> dict[str, Any]:
        """Return a label map of background, and the reason."""
        classes = self.config.task.classes
        outcomes = [Outcome(spec.label, "empty", BLANK) for spec in classes]
        return {
            "outcomes": pack_outcomes(outcomes),
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


def _is_consistent(config: Config) -> bool:
    """Return True if the labels of a volume's slices are chosen together."""
    return config.volumes.consistent and "cascade" in config.run.modes


def _encodes(config: Config) -> bool:
    """Return True if REFINE encodes images itself, and needs their pixels."""
    return needs_refiner(config) and not shares_embedding(config)


def _is_labelling(config: Config) -> bool:
    """Return True if PROPOSE selects the candidates of each class."""
    return "cascade" in config.run.modes and not needs_retriever(config)


def _batch_size(model: Any, configured: int) -> int:
    """Return the batch size of a model; 1 if it has no batches that could be made smaller."""
    return configured if getattr(model, "has_batches", True) else 1


def _pack_candidates(row: Row) -> dict[str, Any]:
    """Return the cells of candidates, and of their number before the area filter."""
    candidates = columns.pack_candidates(row.candidates)
    return {"_n_proposed": row.n_proposed, "_candidates": candidates}


STAGES: dict[str, type[Stage]] = {"propose": Propose, "retrieve": Retrieve, "refine": Refine}


def stages_of(config: Config) -> dict[str, type[Stage]]:
    """Return the stages that a configuration needs, in order.

    REFINE is always one of them: it packs the result, with or without a refiner.
    """
    left_out = {"propose": not needs_proposer(config), "retrieve": not needs_retriever(config)}
    return {name: stage for name, stage in STAGES.items() if not left_out.get(name)}


def stages_with_models(config: Config) -> list[str]:
    """Return the stages that need a pool of actors, in order: those that load a model.

    If none does, REFINE runs alone.
    """
    return [stage for stage in stages_of(config) if stage in needed(config)] or ["refine"]
