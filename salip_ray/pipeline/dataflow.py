"""The dataflow of a job on Ray Data, from the manifest to committed shards."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from salip_ray.cluster.ray_private import set_cpus_of_last_operator
from salip_ray.cluster.resources import COMMIT_CPUS, RECUT_CPUS, Pool
from salip_ray.config import Config
from salip_ray.pipeline.actors import StageActor
from salip_ray.pipeline.decoding.decode import fetch_and_decode
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.sink import ShardSink
from salip_ray.pipeline.stages import stages_of

if TYPE_CHECKING:
    from salip_ray.pipeline.job import Job

BLOCK_BYTES = 32 * 1024**2
_GPU_BATCH = 8  # rows; a call, and what it passes on, costs some milliseconds
_LARGEST_BLOCK = 256  # rows; Ray Data cuts blocks of heavy rows further, by BLOCK_BYTES


def label_and_commit(
    job: Job,
    todo: pa.Table,
    pools: Mapping[str, Pool],
    reporter: StageReporter,
    sink: ShardSink,
    rows_per_block: int,
) -> None:
    """Run the dataflow: each row is one image, and each step adds columns or drops heavy ones.

    Nothing runs before ``write_datasink``; then all steps run at the same time, on a stream of
    blocks that keeps the order of the manifest.

    Args:
        job: the job.
        todo: the rows to label, :data:`~salip_ray.output.manifest.TODO_SCHEMA`.
        pools: the actor pools by stage; a stage without a pool shares the actors of the one before.
        reporter: counts the rows of each stage.
        sink: commits shards.
        rows_per_block: rows that are committed together, in general the rows of a shard.
    """
    fetch_cpus = job.config.pools.fetch_cpus
    with streaming():
        # Source: light blocks of the manifest (URIs, no pixels), small enough for all actors.
        starts = block_starts(todo, max(pool.max_size for pool in pools.values()))
        rows = ray.data.read_datasource(
            ManifestSource(todo, starts), num_cpus=fetch_cpus, override_num_blocks=len(starts)
        )

        # Fetch and decode: bytes to pixels, in stateless CPU tasks.
        images = rows.map_batches(
            partial(
                fetch_and_decode,
                config=job.config,
                references=job.references,
                reporter=reporter,
                prompts=job.prompts,
            ),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=fetch_cpus,
        )

        # PROPOSE, RETRIEVE, REFINE: one pool of actors with loaded models for each.
        labels = images
        for stages, pool in assign_stages(job.config, pools):
            labels = add_actors(labels, stages, pool, job.config, reporter)

        # Regroup: rows are light again, and are cut into the blocks of the manifest's shards. Only
        # their number decides where: rows stay in order (preserve_order), every row that came in
        # goes out, and short shards are last or padded (align_to_blocks).
        shards = regroup(labels, rows_per_block)

        # Sink: write each block as a shard, whose Parquet file commits it.
        shards.write_datasink(sink, ray_remote_args={"num_cpus": COMMIT_CPUS})


def assign_stages(config: Config, pools: Mapping[str, Pool]) -> list[tuple[list[str], Pool]]:
    """Return the stages of each pool, in order; a stage without a pool joins the one before."""
    assigned: list[tuple[list[str], Pool]] = []
    for stage in stages_of(config):
        if stage in pools:
            assigned.append(([stage], pools[stage]))
        else:
            assigned[-1][0].append(stage)
    return assigned


def add_actors(
    rows: Dataset, stages: Sequence[str], pool: Pool, config: Config, reporter: StageReporter
) -> Dataset:
    """Append a pool of actors that bring each row through some stages."""
    # Ray shows the name of the class in its dashboard, metrics and logs.
    actor = type("".join(stage.title() for stage in stages), (StageActor,), {})
    return rows.map_batches(
        actor,
        # Ray Data refuses whole blocks (None) for actors with GPUs, and joins blocks that are
        # smaller than a batch: a few rows, so that none waits long for others.
        batch_size=_GPU_BATCH if pool.gpus else None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(min_size=pool.min_size, max_size=pool.max_size),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        fn_constructor_kwargs={
            "stages": [stages_of(config)[stage] for stage in stages],
            "config": config,
            "threads": pool.threads,
            "reporter": reporter,
        },
    )


def regroup(labels: Dataset, rows_per_block: int) -> Dataset:
    """Cut rows into blocks of exactly ``rows_per_block`` rows, in order."""
    blocks = labels.repartition(target_num_rows_per_block=rows_per_block, strict=True)
    # A whole CPU, Ray Data's default, is not free before the fetch tasks of the job are done.
    set_cpus_of_last_operator(blocks, RECUT_CPUS)
    return blocks


class ManifestSource(Datasource):
    """Yield the rows to label in light blocks, in order.

    Args:
        todo: the rows.
        starts: the first row of each block.
    """

    def __init__(self, todo: pa.Table, starts: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray does not type it
        self._todo = todo
        self._starts = starts

    def estimate_inmemory_data_size(self) -> int:
        """Return the bytes of all rows."""
        return int(self._todo.nbytes)

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002  (the blocks follow from the job)
        *_: Any,
        **__: Any,
    ) -> list[ReadTask]:
        """Return one task per block."""
        tasks = []
        for start, end in itertools.pairwise([*self._starts, self._todo.num_rows]):
            part = self._todo.slice(start, end - start)
            # A copy: a pickled slice would carry the whole table.
            part = part.take(pa.array(range(part.num_rows))).combine_chunks()
            metadata = BlockMetadata(
                num_rows=part.num_rows, size_bytes=part.nbytes, input_files=None, exec_stats=None
            )
            tasks.append(ReadTask(partial(_one_block, part), metadata, schema=part.schema))
        return tasks


def _one_block(part: pa.Table) -> list[pa.Table]:
    return [part]


def block_starts(todo: pa.Table, actors: int) -> list[int]:
    """Return the first rows of input blocks that keep all actors busy to the end.

    A block is a quarter of an actor's share of the remaining rows, 256 at most: blocks get smaller
    towards the end, so that all actors end at about the same time. A file of several
    slices is never cut: one task unpacks it, and its slices stream from there to all actors. The
    files of a DICOM series are rows like any others.

    Args:
        todo: rows with ``uri`` and ``index``.
        actors: the largest number of actors of a stage.
    """
    starts, start, largest = list[int](), 0, 0
    while start < todo.num_rows:
        starts.append(start)
        rows = min(_LARGEST_BLOCK, math.ceil((todo.num_rows - start) / (4 * actors)))
        start, largest = start + rows, max(largest, rows)
    if todo["index"].null_count == todo.num_rows:
        return starts
    uris = todo["uri"].combine_chunks().dictionary_encode().indices.to_numpy()
    in_volume = todo["index"].is_valid().to_numpy()
    is_first = np.ones(todo.num_rows, np.bool_)
    is_first[1:] = (uris[1:] != uris[:-1]) | ~in_volume[1:]
    first = np.maximum.accumulate(np.where(is_first, np.arange(todo.num_rows), 0))
    # A volume that is larger than a block becomes a separate block.
    sizes = np.bincount(first, minlength=todo.num_rows)
    large = np.flatnonzero(is_first & (sizes > largest))
    return sorted({int(row) for row in (*first[starts], *large)})


@contextlib.contextmanager
def streaming() -> Iterator[None]:
    """Let datasets that are created in the context stream in order and in small blocks."""
    context = DataContext.get_current()
    issues = context.issue_detectors_config
    before = (
        context.target_max_block_size,
        context.execution_options.preserve_order,
        context.enable_progress_bars,
        issues.detectors,
    )
    context.target_max_block_size = BLOCK_BYTES
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    issues.detectors = []  # they take the memory of torch, and long images, for problems
    try:
        yield
    finally:
        context.target_max_block_size = before[0]
        context.execution_options.preserve_order = before[1]
        context.enable_progress_bars = before[2]
        issues.detectors = before[3]
