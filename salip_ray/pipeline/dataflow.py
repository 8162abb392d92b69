"""The pipeline, put together: datasets in, datasets with label columns out."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from salip_ray.cluster.resources import RECUT_CPUS, Pool
from salip_ray.config import Config
from salip_ray.pipeline.actors import Chain, Stage, stages_of
from salip_ray.pipeline.decode import fetch_and_decode
from salip_ray.pipeline.monitor import StageReporter
from salip_ray.sources.references import References

BLOCK_BYTES = 32 * 1024**2
_GPU_BATCH = 8  # rows; a call, and what it hands on, cost some milliseconds
_LARGEST_BLOCK = 256  # rows; heavy rows are cut into smaller blocks by their bytes


class ManifestSource(Datasource):
    """Hands out the to-do list in light blocks, in order; each is expanded in a task."""

    def __init__(self, todo: pa.Table, starts: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray does not type it
        self._todo = todo
        self._starts = starts

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the list."""
        return int(self._todo.nbytes)

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002  (the blocks follow from the job)
        *_: Any,
        **__: Any,
    ) -> list[ReadTask]:
        """One task for each block."""
        tasks = []
        for start, end in itertools.pairwise([*self._starts, self._todo.num_rows]):
            part = self._todo.slice(start, end - start)
            # Copied, as a pickled slice would take the whole table along.
            part = part.take(pa.array(range(part.num_rows))).combine_chunks()
            metadata = BlockMetadata(
                num_rows=part.num_rows, size_bytes=part.nbytes, input_files=None, exec_stats=None
            )
            tasks.append(ReadTask(partial(_blocks_of, part), metadata, schema=part.schema))
        return tasks


def _blocks_of(part: pa.Table) -> list[pa.Table]:
    return [part]


def block_starts(todo: pa.Table, actors: int) -> list[int]:
    """Where input blocks begin, such that ``actors`` are all busy to the end.

    A block is a quarter of an actor's share of the rows that are left, 256 at most: blocks get
    smaller towards the end, so that no actor is long at its last one. A block that would part a
    volume begins before it; the volume is so unpacked in one task, and its slices stream from there
    to all actors.
    """
    starts, start, largest = list[int](), 0, 0
    while start < todo.num_rows:
        starts.append(start)
        rows = min(_LARGEST_BLOCK, math.ceil((todo.num_rows - start) / (4 * actors)))
        start, largest = start + rows, max(largest, rows)
    if todo["index"].null_count == todo.num_rows:
        return starts
    uris = todo["uri"].combine_chunks().dictionary_encode().indices.to_numpy()
    of_file = todo["index"].is_valid().to_numpy()
    new = np.ones(todo.num_rows, np.bool_)
    new[1:] = (uris[1:] != uris[:-1]) | ~of_file[1:]
    first = np.maximum.accumulate(np.where(new, np.arange(todo.num_rows), 0))
    # Volumes that are larger than a block have one of their own.
    large = np.flatnonzero(new & (np.bincount(first, minlength=todo.num_rows) > largest))
    return sorted({int(place) for place in (*first[starts], *large)})


def decoded(
    todo: pa.Table,
    config: Config,
    pools: Mapping[str, Pool],
    references: References | None,
    reporter: StageReporter,
) -> Dataset:
    """The images of a to-do list, fetched and decoded in CPU tasks."""
    starts = block_starts(todo, max(pool.max_size for pool in pools.values()))
    cpus = config.pools.fetch_cpus
    manifest: Dataset = ray.data.read_datasource(
        ManifestSource(todo, starts),
        num_cpus=cpus,
        override_num_blocks=len(starts),
    )
    return manifest.map_batches(
        partial(fetch_and_decode, config=config, references=references, reporter=reporter),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=cpus,
    )


def cascaded(
    images: Dataset, config: Config, pools: Mapping[str, Pool], reporter: StageReporter
) -> Dataset:
    """PROPOSE, RETRIEVE and REFINE on decoded rows, each in the actors of its pool.

    A stage that has no pool is done by the actors of the one before it.
    """
    shares: dict[str, list[type[Stage]]] = {}
    for name, stage in stages_of(config).items():
        if name in pools:
            owner = name
        shares.setdefault(owner, []).append(stage)
    for owner, shared in shares.items():
        pool = pools[owner]
        settings = {"config": config, "threads": pool.threads, "reporter": reporter}
        images = images.map_batches(
            shared[0] if len(shared) == 1 else Chain,
            # Ray Data refuses whole blocks (None) to actors with GPUs, and joins blocks that are
            # smaller than a batch: a few rows, that none waits long for others.
            batch_size=_GPU_BATCH if pool.gpus else None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=pool.min_size, max_size=pool.max_size),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            fn_constructor_kwargs=settings if len(shared) == 1 else {"stages": shared, **settings},
        )
    return images


def gathered(labels: Dataset, block: int) -> Dataset:
    """Rows that are light again in blocks of exactly ``block`` rows: the shards of the manifest."""
    shards = labels.repartition(target_num_rows_per_block=block, strict=True)
    # By itself the cutting asks for a whole CPU, which a job whose actors fill the nodes does not
    # get before its fetch tasks are over; Ray Data has no argument for less.
    cutting: Any = shards._logical_plan.dag
    cutting.ray_remote_args["num_cpus"] = RECUT_CPUS
    return shards


@contextlib.contextmanager
def streaming() -> Iterator[None]:
    """Have datasets made inside stream in order and in small blocks."""
    context = DataContext.get_current()
    before = (
        context.target_max_block_size,
        context.execution_options.preserve_order,
        context.enable_progress_bars,
    )
    context.target_max_block_size = BLOCK_BYTES
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.target_max_block_size = before[0]
        context.execution_options.preserve_order = before[1]
        context.enable_progress_bars = before[2]
