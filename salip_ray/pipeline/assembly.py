"""The pipeline, put together: datasets in, datasets with label columns out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from salip_ray.config import Config
from salip_ray.pipeline.decoding import fetch_and_decode
from salip_ray.pipeline.monitor import Reporter
from salip_ray.pipeline.resources import Pool
from salip_ray.pipeline.stages import stages_of
from salip_ray.sources.references import References

BLOCK_BYTES = 32 * 1024**2
_LARGEST_BLOCK = 256  # rows; heavy rows are cut into smaller blocks by their bytes


class ManifestSource(Datasource):
    """Hands out the to-do list in light blocks, in order; each is expanded in a task."""

    def __init__(self, todo: pa.Table, block_rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray does not type it
        self._todo = todo
        self._block_rows = block_rows

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
        for start in range(0, self._todo.num_rows, self._block_rows):
            part = self._todo.slice(start, self._block_rows)
            # Copied, as a pickled slice would take the whole table along.
            part = part.take(pa.array(range(part.num_rows))).combine_chunks()
            metadata = BlockMetadata(
                num_rows=part.num_rows, size_bytes=part.nbytes, input_files=None, exec_stats=None
            )
            tasks.append(ReadTask(partial(_blocks_of, part), metadata, schema=part.schema))
        return tasks


def _blocks_of(part: pa.Table) -> list[pa.Table]:
    return [part]


def block_rows(n_rows: int, pools: Mapping[str, Pool]) -> int:
    """Rows of an input block: enough blocks to keep every actor busy to the end."""
    actors = max(pool.max_size for pool in pools.values())
    return max(1, min(_LARGEST_BLOCK, math.ceil(n_rows / (4 * actors))))


def decoded(
    todo: pa.Table,
    config: Config,
    pools: Mapping[str, Pool],
    references: References | None,
    reporter: Reporter,
) -> Dataset:
    """The images of a to-do list, fetched and decoded in CPU tasks."""
    rows = block_rows(todo.num_rows, pools)
    cpus = config.pools.fetch_cpus
    manifest: Dataset = ray.data.read_datasource(
        ManifestSource(todo, rows),
        num_cpus=cpus,
        override_num_blocks=math.ceil(todo.num_rows / rows),
    )
    return manifest.map_batches(
        partial(fetch_and_decode, config=config, references=references, reporter=reporter),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=cpus,
    )


def cascaded(
    images: Dataset, config: Config, pools: Mapping[str, Pool], reporter: Reporter
) -> Dataset:
    """PROPOSE, RETRIEVE and REFINE, each in its pool of actors, on decoded rows."""
    for name, stage in stages_of(config).items():
        pool = pools[name]
        images = images.map_batches(
            stage,
            # Ray Data refuses whole blocks (None) to actors with GPUs. A stage goes row by row
            # anyhow, so one at a time costs nothing, and no block waits to be joined to another.
            batch_size=1 if pool.gpus else None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=pool.min_size, max_size=pool.max_size),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            fn_constructor_kwargs={
                "config": config,
                "threads": pool.threads,
                "reporter": reporter,
            },
        )
    return images


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
