"""The actors that run the stages.

An actor loads the models of its stages once, and processes rows one by one: no tensor ever mixes
images, so the bytes of a row do not depend on other rows.

An exception becomes the ``status`` and ``error`` of its row, and later stages pass the row through.
If memory runs out, the row is done again with half the batch (of points, crops or boxes), down to
one; the batch size that fitted is recorded in the shard's statistics. A broken GPU ends its worker.
A row on which several workers died is given up (:mod:`salip_ray.pipeline.workers.deaths`).

Torch is imported in the actors: it takes seconds, which the driver and the tasks do not spend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from salip_ray.config import Config
from salip_ray.output.manifest import is_padding
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.monitoring.telemetry import log_event
from salip_ray.pipeline.rows import columns, tables
from salip_ray.pipeline.rows.row import Row
from salip_ray.pipeline.rows.tables import in_tables
from salip_ray.pipeline.stages import Stage
from salip_ray.pipeline.workers.deaths import WorkerDiedError, attempts_of, given_up
from salip_ray.pipeline.workers.devices import end_worker, is_broken_device, require_working
from salip_ray.pipeline.workers.memory import free_memory, is_out_of_memory, keep_freed_memory
from salip_ray.pipeline.workers.recycling import Recycler


class StageActor:
    """An actor that brings each row through one stage or several.

    Args:
        stages: in order.
        config: of the job.
        threads: CPU threads of torch.
        reporter: counts rows.
    """

    def __init__(
        self,
        stages: Sequence[Callable[[Config], Stage]],
        config: Config,
        threads: int,
        reporter: StageReporter,
    ) -> None:
        self.device = self.prepare(config, threads)
        self._stages = [stage(config) for stage in stages]
        self._dropped = {name for stage in self._stages for name in stage.drops}
        self._reporter = reporter
        self._attempts = attempts_of(reporter)
        first = self._stages[0].name
        self._recycler = Recycler(getattr(config.pools, first).recycle_after)

    def prepare(self, config: Config, threads: int) -> str:
        """Set up this process before models are loaded, and return its device.

        Raises:
            ResourceError: the GPU cannot compute.
        """
        import torch

        from salip_ray.models.devices import resolve_device

        keep_freed_memory()
        torch.set_num_threads(threads)
        device = resolve_device(config.run.device)
        require_working(device)
        return str(device)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the rows of a batch as they are done, heavy ones in small tables."""
        names = batch.column_names
        unchanged = batch.drop_columns([name for name in names if name in self._dropped])
        adds = [name for stage in self._stages for name in self._columns(stage)]
        with self._recycler.busy(batch.num_rows):
            yield from in_tables(unchanged, self._rows(batch), adds)
        if batch.num_rows > 1:  # single rows follow each other quickly: the timer is enough
            self._reporter.flush()

    def _rows(self, batch: pa.Table) -> Iterator[tables.Arrays]:
        """Yield the new cells of each row."""
        deaths = self._attempts.deaths()
        for index in range(batch.num_rows):
            row = Row({name: batch.column(name)[index] for name in batch.column_names})
            volume = row.cells["volume"].as_py() if "volume" in row.cells else None
            died = given_up(deaths, row.image_id, volume)
            with self._attempts.at(row.image_id, volume):
                cells: dict[str, Any] = {}
                for stage in self._stages:
                    cells |= self.process(stage, row, cells, died)
            yield tables.as_arrays(cells)

    def _columns(self, stage: Stage) -> tuple[str, ...]:
        """Return the columns that a stage adds in this actor."""
        return tuple(name for name in (*stage.adds, *stage.passes) if name not in self._dropped)

    def process(
        self, stage: Stage, row: Row, before: Mapping[str, Any], died: WorkerDiedError | None
    ) -> dict[str, Any]:
        """Bring a row through one stage, and return its new cells.

        Args:
            stage: the stage.
            row: gets the attributes that the stage computes, and its status.
            before: new cells from earlier stages of this actor.
            died: why the row is given up, or None.
        """
        nothing: dict[str, Any] = dict.fromkeys(self._columns(stage))
        if row.status != "ok":
            if not is_padding(row.image_id):
                self._reporter.done(stage.name, 0.0, passed=True)
            return nothing | (stage.blank(row) if row.status == "empty" else {})
        start = time.perf_counter()
        error = None
        try:
            if died is not None:
                raise died
            cells = nothing | self._fit(stage, row, before)
            row.status = cells.get("status", row.status)
        except Exception as problem:  # noqa: BLE001  (a bad row must not end the job)
            row.status, error = "error", columns.error(stage.name, problem)
            cells = {**nothing, "status": "error", "error": error}
            if is_broken_device(problem):
                about = {**error, **columns.named(row.cells)}
                log_event("device_broken", level="WARNING", run=self._reporter.run, **about)
                end_worker()
        seconds = time.perf_counter() - start
        self._reporter.done(stage.name, seconds, error=error, row=columns.named(row.cells))
        self._reporter.memory(stage.name)
        spent = before.get("_seconds") or row.cells["_seconds"].as_py()
        return {**cells, "_seconds": {**spent, stage.name: seconds}}

    def _fit(self, stage: Stage, row: Row, before: Mapping[str, Any]) -> dict[str, Any]:
        """Process a row in batches that fit the memory, and return its new cells.

        Every row begins with the full batch, so that its bytes do not depend on earlier rows.
        """
        size = stage.batch_size
        while True:
            try:
                cells = stage.work(row)
                if not self._dropped.issuperset(stage.passes):
                    cells |= stage.pack(row)
                break
            except Exception as problem:
                if size == 1 or not is_out_of_memory(problem):
                    raise
                problem.__traceback__ = None  # its frames hold the tensors
                size //= 2
            finally:
                stage.use_batches(stage.batch_size)
            free_memory(self.device)
            stage.use_batches(size)
        if size < stage.batch_size:
            earlier = before.get("_fallbacks") or row.cells["_fallbacks"].as_py() or []
            cells["_fallbacks"] = [*earlier, {"stage": stage.name, "batch": size}]
        return cells
