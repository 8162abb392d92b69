"""The stages: what runs in the tasks and actors of the job.

A stage maps a table of rows to rows, one by one: no tensor ever mixes images, so a row's bytes do
not depend on which rows came along. An exception belongs to its row: it becomes ``status`` and
``error``, and later stages pass the row through untouched. Models are loaded inside the actor,
once. Torch is imported there, too: it takes seconds, which the driver and the tasks need not spend.

Memory that runs out is not an error yet: the row is done again with half the batch (of points,
crops or boxes), and so on down to one; what it took is noted in the shard's statistics. A GPU that
breaks ends its worker, which would fail all rows from there on, faster than any other does them. A
row on which workers died again and again is given up (:mod:`salip_ray.pipeline.faults`).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from salip_ray.config import Config
from salip_ray.output.masks import encode_png, label_map
from salip_ray.pipeline import arrow
from salip_ray.pipeline.arrow import in_tables
from salip_ray.pipeline.faults import (
    MOST_DEATHS,
    Recycler,
    WorkerDiedError,
    attempts_of,
    end_worker,
    free_memory,
    is_broken_device,
    is_out_of_memory,
    keep_freed_memory,
    require_working,
)
from salip_ray.pipeline.monitor import StageReporter
from salip_ray.pipeline.telemetry import log_event
from salip_ray.schema import Outcome

if TYPE_CHECKING:
    from salip_ray.cascade.cascade import CascadeMasks

Cells = Mapping[str, pa.Scalar]
BLANK = "the slice is blank"


class Stage(ABC):
    """One actor of a pool.

    Attributes:
        name: of the stage, as errors and timings give it.
        adds: columns it appends.
        drops: columns it is the last to need.
        batch_size: what it does at once of one image: points, crops or boxes.
    """

    name: str
    adds: tuple[str, ...]
    drops: tuple[str, ...]
    batch_size: int

    def __init__(self, config: Config, threads: int, reporter: StageReporter) -> None:
        import torch

        from salip_ray.models.devices import resolve_device

        keep_freed_memory()
        torch.set_num_threads(threads)
        self.config = config
        self.device = resolve_device(config.run.device)
        require_working(self.device)
        self.reporter = reporter
        self.attempts = attempts_of(reporter)
        self.recycler = Recycler(getattr(config.pools, self.name).recycle_after)

    @abstractmethod
    def use_batches(self, size: int) -> None:
        """Do ``size`` points, crops or boxes at once from now on."""

    @abstractmethod
    def work(self, cells: Cells) -> dict[str, Any]:
        """The new columns of one good row."""

    def passed_by(self, cells: Cells) -> dict[str, Any]:  # noqa: ARG002
        """The new columns of a row that is an error, or blank, and is not worked on."""
        return {}

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the rows of a batch, heavy ones as they get done."""
        yield from _worked((self,), batch)  # Ray Data wants a generator, no other iterator

    def new_cells(self, cells: Cells, deaths: int) -> dict[str, Any]:
        """What this stage adds to a row, or replaces.

        Args:
            cells: the row.
            deaths: how many workers died on it.
        """
        nothing = dict.fromkeys(self.adds)
        if cells["status"].as_py() != "ok":
            if cells["image_id"].as_py():  # padding is no image
                self.reporter.done(self.name, 0.0)
            return nothing | self.passed_by(cells)
        start = time.perf_counter()
        error = None
        try:
            if deaths >= MOST_DEATHS:
                raise WorkerDiedError(deaths)
            values = {**nothing, **self._fitted(cells)}
        except Exception as problem:  # noqa: BLE001  (a bad row must not end the job)
            error = arrow.error(self.name, problem)
            if is_broken_device(problem):
                about = {**error, **arrow.named(cells)}
                log_event("device_broken", level="WARNING", run=self.reporter.run, **about)
                end_worker()
            values = {**nothing, "status": "error", "error": error}
        seconds = time.perf_counter() - start
        self.reporter.done(self.name, seconds, error=error, row=arrow.named(cells))
        self.reporter.memory(self.name)
        return {**values, "_seconds": {**cells["_seconds"].as_py(), self.name: seconds}}

    def _fitted(self, cells: Cells) -> dict[str, Any]:
        """Do the work in batches that fit the memory.

        Every row begins with the full batch, so that its bytes do not depend on the rows before.
        """
        size = self.batch_size
        while True:
            try:
                values = self.work(cells)
                break
            except Exception as problem:
                if size == 1 or not is_out_of_memory(problem):
                    raise
                problem.__traceback__ = None  # its frames hold the tensors
                size //= 2
            finally:
                self.use_batches(self.batch_size)
            free_memory(str(self.device))
            self.use_batches(size)
        if size < self.batch_size:
            before = cells["_fallbacks"].as_py() or []
            values["_fallbacks"] = [*before, {"stage": self.name, "batch": size}]
        return values


def _encodes_again(config: Config) -> bool:
    """Whether the refiner has weights of its own, for which the embedding means nothing."""
    return config.refine.sam is not None


class Propose(Stage):
    """SAM's parts of the image, and its embedding."""

    name = "propose"
    adds = arrow.PROPOSED

    def __init__(self, config: Config, threads: int, reporter: StageReporter) -> None:
        from salip_ray.models.loading import load_proposer

        super().__init__(config, threads, reporter)
        self.batch_size = config.propose.points_per_batch
        self.drops = () if _pixels_go_on(config) else ("_working",)
        self.propose = load_proposer(config, self.device)

    def use_batches(self, size: int) -> None:
        """Do ``size`` points at once from now on."""
        self.propose.set_batch_size(size)

    def work(self, cells: Cells) -> dict[str, Any]:
        """Propose candidates."""
        proposals = self.propose(arrow.unpack_working(cells))
        values = {
            "n_candidates": len(proposals.candidates),
            "_n_proposed": proposals.n_proposed,
            "_candidates": arrow.pack_candidates(proposals.candidates),
        }
        if not _encodes_again(self.config):
            values |= arrow.pack_embedding(proposals.embedding.float().cpu().numpy())
        return values


def _pixels_go_on(config: Config) -> bool:
    return "cascade" in config.run.modes or _encodes_again(config)


class Retrieve(Stage):
    """CLIP's choice of candidates for each class; part of the job where ``cascade`` is a mode."""

    name = "retrieve"
    adds = arrow.RETRIEVED

    def __init__(self, config: Config, threads: int, reporter: StageReporter) -> None:
        from salip_ray.models.loading import load_retriever

        super().__init__(config, threads, reporter)
        self.batch_size = config.retrieve.batch_size
        self.drops = () if _encodes_again(config) else ("_working",)
        self.retrieve = load_retriever(config, self.device)

    def use_batches(self, size: int) -> None:
        """Do ``size`` crops at once from now on."""
        self.retrieve.set_batch_size(size)

    def work(self, cells: Cells) -> dict[str, Any]:
        """Select candidates."""
        candidates = arrow.unpack_candidates(cells)
        selections = self.retrieve(arrow.unpack_working(cells), candidates)
        return {"_selections": arrow.pack_selections(selections)}


class Refine(Stage):
    """SAM's masks from boxes, the baselines, and all of it in the form that is kept."""

    name = "refine"
    adds = arrow.REFINED
    drops = (
        "_working",
        "_working_size",
        "_references",
        "_candidates",
        "_n_proposed",
        "_embedding",
        "_embedding_size",
        "_selections",
    )

    def __init__(self, config: Config, threads: int, reporter: StageReporter) -> None:
        from salip_ray.models.loading import load_refiner

        super().__init__(config, threads, reporter)
        self.batch_size = config.refine.batch_size
        self.refine = load_refiner(config, self.device)

    def use_batches(self, size: int) -> None:
        """Do ``size`` boxes at once from now on."""
        self.refine.set_batch_size(size)

    def passed_by(self, cells: Cells) -> dict[str, Any]:
        """A blank slice has a label map of background, and says why."""
        if cells["status"].as_py() == "error":
            return {}
        classes = self.config.task.classes
        height, width = cells["height"].as_py(), cells["width"].as_py()
        blank = label_map((), height, width, n_classes=len(classes))
        outcomes = [Outcome(spec.label, "empty", BLANK) for spec in classes]
        return {
            "outcomes": arrow.pack_outcomes(outcomes),
            "masks": [],
            "n_candidates": 0,
            "ranking": [],
            "_png": encode_png(blank),
        }

    def work(self, cells: Cells) -> dict[str, Any]:
        """Make the class masks, the label map and the row's final status."""
        import torch

        from salip_ray.cascade.cascade import compose

        height, width = cells["height"].as_py(), cells["width"].as_py()
        working_height, working_width = cells["_working_size"].as_py()
        if _encodes_again(self.config):
            embedding = self.refine.encode(arrow.unpack_working(cells))
        else:
            embedding = torch.from_numpy(arrow.unpack_embedding(cells))
        candidates = arrow.unpack_candidates(cells)
        selections = arrow.unpack_selections(cells)
        labels = compose(
            self.config,
            self.refine,
            candidates=candidates,
            n_proposed=cells["_n_proposed"].as_py(),
            embedding=embedding,
            selections=selections,
            working_size=(working_height, working_width),
            original_size=(height, width),
            references=arrow.unpack_references(cells),
        )
        classes = len(self.config.task.classes)
        return {
            "status": "ok" if _labelled(labels, self.config) else "empty",
            "outcomes": arrow.pack_outcomes(labels.outcomes),
            "masks": arrow.pack_masks(labels.masks),
            "ranking": arrow.pack_ranking(candidates, selections),
            "_png": encode_png(label_map(labels.masks, height, width, n_classes=classes)),
        }


def _labelled(labels: CascadeMasks, config: Config) -> bool:
    """Whether the image has a label: the cascade's, where it is a mode, else any method's."""
    if "cascade" in config.run.modes:
        return any(outcome.outcome == "labelled" for outcome in labels.outcomes)
    return bool(labels.masks)


class Chain:
    """Stages that share an actor: each row goes through all of them before the next one does.

    The recycling of the first is the actor's.
    """

    def __init__(
        self, stages: Sequence[type[Stage]], config: Config, threads: int, reporter: StageReporter
    ) -> None:
        self.stages = [stage(config, threads, reporter) for stage in stages]

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the finished rows of a batch."""
        yield from _worked(self.stages, batch)


def _worked(stages: Sequence[Stage], batch: pa.Table) -> Iterator[pa.Table]:
    """The rows of a batch, each brought through all the stages before the next one is begun."""
    first = stages[0]
    dropped = {name for stage in stages for name in stage.drops}
    adds = [name for stage in stages for name in stage.adds if name not in dropped]
    kept = batch.drop_columns([name for name in batch.column_names if name in dropped])

    def rows() -> Iterator[arrow.Arrays]:
        ids = batch["image_id"].to_pylist() if "image_id" in batch.column_names else []
        deaths = first.attempts.deaths()
        for index in range(batch.num_rows):
            key = ids[index] if ids else ""
            cells = {name: batch.column(name)[index] for name in batch.column_names}
            made: dict[str, pa.Array] = {}
            with first.attempts.at(key):
                for stage in stages:
                    new = arrow.as_arrays(stage.new_cells(cells, deaths.get(key, 0)))
                    cells.update((name, cell[0]) for name, cell in new.items())
                    made.update(new)
            yield {name: cell for name, cell in made.items() if name not in dropped}

    with first.recycler.busy(batch.num_rows):
        yield from in_tables(kept, rows(), adds)
    if batch.num_rows > 1:  # single rows come quickly one after the other: now and then will do
        first.reporter.flush()


STAGES: dict[str, type[Stage]] = {"propose": Propose, "retrieve": Retrieve, "refine": Refine}


def stages_of(config: Config) -> dict[str, type[Stage]]:
    """The stages a configuration needs, in order: without ``cascade`` nothing is retrieved."""
    if "cascade" in config.run.modes:
        return STAGES
    return {name: stage for name, stage in STAGES.items() if name != "retrieve"}
