"""The whole job around stages that only sleep: what Ray, plan and commits cost by themselves.

    python benchmarks/noop.py --rows 1000 --sleep 0.05 --embedding 2097152 --out bench-output/noop

Listing, manifest, fetch tasks, actor pools, embeddings in the object store, shards, commits and
resume are the real ones. Fetching and the models are left out: a stage sleeps, PROPOSE passes an
"embedding" of the given size, and the label maps are one black pixel. Joins RAY_ADDRESS where it is
set. Prints the driver's figures as one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray import load_config
from salip_ray.config import Config
from salip_ray.pipeline import dataflow, stages
from salip_ray.pipeline import job as run
from salip_ray.pipeline.actors import StageActor
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.rows import columns
from salip_ray.pipeline.rows.row import Row
from salip_ray.pipeline.stages import Stage

#: What the stages do; travels with their classes, which are pickled by value.
SLEEP, EMBEDDING = {"propose": 0.0, "retrieve": 0.0, "refine": 0.0}, 0
HOLD: Path | None = None  # stages wait while this file exists
_SMALLEST_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


def make_manifest(path: Path, rows: int) -> Path:
    """Write a manifest with URIs as long as real ones, unless the file exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        schema = pa.schema([("uri", pa.string())])
        partial = path.with_suffix(".tmp")
        with pq.ParquetWriter(partial, schema) as writer:
            for start in range(0, rows, 262_144):
                names = [
                    f"s3://hospital-archive/2024/chest-xray/study-{i // 4:010d}/{i:012d}.png"
                    for i in range(start, min(rows, start + 262_144))
                ]
                writer.write_table(pa.table({"uri": names}, schema))
        partial.replace(path)
    return path


def nothing_fetched(
    batch: pa.Table,
    config: Config,  # noqa: ARG001
    references: Any,  # noqa: ARG001
    reporter: StageReporter,
    prompts: Any = None,  # noqa: ARG001
) -> Iterator[pa.Table]:
    """Stands in for fetch and decode: a block of rows with one-pixel images, all at once."""
    n = batch.num_rows
    nothing = {name: pa.nulls(n, columns.TYPES[name]) for name in columns.DECODED}
    values = {
        **{name: batch[name] for name in columns.OF_MANIFEST},
        **nothing,
        "uri": batch["uri"],
        "_shard": batch["shard"],
        "_seq": batch["seq"],
        "height": pa.array([1] * n, columns.TYPES["height"]),
        "width": pa.array([1] * n, columns.TYPES["width"]),
        "status": pa.array(["ok"] * n, columns.TYPES["status"]),
        "_working": pa.array([b"\0\0\0"] * n, columns.TYPES["_working"]),
        "_working_size": pa.array([[1, 1]] * n, columns.TYPES["_working_size"]),
        "_seconds": pa.array([{"fetch": 0.0}] * n, columns.TYPES["_seconds"]),
    }
    for _ in range(n):
        reporter.done("fetch", 0.0)
    reporter.flush()
    yield pa.table(values)


class Sleeper(Stage):
    """A stage that sleeps instead of working."""

    does: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.batch_size = 1
        self.sleep, self.bytes, self.hold = SLEEP[self.name], EMBEDDING, HOLD

    def use_batches(self, size: int) -> None:
        """Sleep takes no memory."""

    def work(self, _row: Row) -> dict[str, Any]:
        """Sleep, and return the cells ``does`` of no result."""
        if self.sleep:
            time.sleep(self.sleep)
        while self.hold and self.hold.exists():
            time.sleep(0.05)
        return dict(self.does)


class Propose(Sleeper):
    """Stands in for PROPOSE."""

    name, adds, passes = "propose", stages.Propose.adds, stages.Propose.passes
    drops = ("_working",)
    does: ClassVar[dict[str, Any]] = {"n_candidates": 0}

    def pack(self, _row: Row) -> dict[str, Any]:
        """Return no candidate, and an embedding of the given size."""
        embedding = np.zeros((1, 1, 1, self.bytes // 4), np.float32)
        return {"_n_proposed": 0, "_candidates": [], **columns.pack_embedding(embedding)}


class Retrieve(Sleeper):
    """Stands in for RETRIEVE."""

    name, passes = "retrieve", stages.Retrieve.passes

    def pack(self, _row: Row) -> dict[str, Any]:
        """Return no selection."""
        return {"_selections": []}


class Refine(Sleeper):
    """Stands in for REFINE."""

    name, adds, drops = "refine", stages.Refine.adds, stages.Refine.drops
    does: ClassVar[dict[str, Any]] = {
        "status": "empty",
        "outcomes": [],
        "masks": [],
        "_png": _SMALLEST_PNG,
    }


class SleepingActor(StageActor):
    """An actor that needs no torch."""

    def prepare(self, config: Config, threads: int) -> str:  # noqa: ARG002
        """Set up nothing."""
        return "cpu"


def install(sleep: dict[str, float], embedding: int, hold: Path | None = None) -> None:
    """Put the sleeping stages in the place of the real ones, in this process and its workers."""
    import ray.cloudpickle as pickle

    global EMBEDDING, HOLD
    SLEEP.update(sleep)
    EMBEDDING, HOLD = embedding, hold
    if __name__ != "__main__":
        pickle.register_pickle_by_value(sys.modules[__name__])
    stages.STAGES.update({"propose": Propose, "retrieve": Retrieve, "refine": Refine})
    dataflow.StageActor = SleepingActor
    dataflow.fetch_and_decode = nothing_fetched
    run.identify = lambda _: {"sam": "0" * 64, "clip": "0" * 64}
    run.pin = lambda config, _: config


def peak_mib() -> float:
    """Return the largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds an image in PROPOSE")
    parser.add_argument("--embedding", type=int, default=0, help="bytes an image")
    parser.add_argument("--hold", type=Path, help="stages wait while this file exists")
    parser.add_argument("--set", action="append", default=[], help="as for salip-ray label")
    options = parser.parse_args()
    install({"propose": options.sleep}, options.embedding, options.hold)
    config = load_config("lungs", overrides=options.set)
    manifest = make_manifest(options.out.parent / f"manifest-{options.rows}.parquet", options.rows)
    began, cpu = time.perf_counter(), time.process_time()
    summary = run.label(manifest, options.out, config)
    seconds = time.perf_counter() - began
    figures = {
        "rows": summary.images,
        "shards": summary.shards,
        "rows_in_run": summary.images_in_run,
        "seconds": round(seconds, 2),
        "rows_per_second": round(summary.images_in_run / seconds, 1),
        "driver_peak_mib": round(peak_mib()),
        "driver_cpu_seconds": round(time.process_time() - cpu, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
