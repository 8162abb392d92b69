"""The Ray Data sink: whole shards in, committed shards out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasink
from ray.data._internal.execution.interfaces import TaskContext
from ray.data.block import Block, BlockAccessor
from ray.exceptions import RayError

from salip_ray.output.commit import commit_shard
from salip_ray.output.committed_rows import merge_committed_rows
from salip_ray.output.lease import require_owner
from salip_ray.output.manifest import PADDING
from salip_ray.output.store import Store
from salip_ray.pipeline.monitor import StageReporter

DRAIN_SECONDS = 120.0  #: the longest that a job which stops waits for commits under way


class StoppingError(RuntimeError):
    """The driver was told to stop: no further shard is committed."""


class ShardSink(Datasink[list[int]]):
    """Commits each block it is given, which must be exactly one shard, or a few whole ones.

    Args:
        store: the output.
        sizes: how many rows each shard has, by its number.
        classes: class ids by label.
        owner: id of the lease of the job, which is checked before each commit.
        reporter: asked before each commit, told after it.
        committing: the shards that are being committed just now, by any task.
        keeping: the rows are some of shards that are committed; the others are kept as they are.
    """

    def __init__(
        self,
        store: Store,
        *,
        sizes: Sequence[int] | npt.NDArray[np.int64],
        classes: Mapping[str, int],
        owner: str,
        reporter: StageReporter,
        committing: Callable[[], Collection[int]] = tuple,
        keeping: bool = False,
    ) -> None:
        self._store = store
        self._sizes = np.asarray(sizes)
        self._classes = dict(classes)
        self._owner = owner
        self._reporter = reporter
        self._committing = committing
        self._keeping = keeping

    def write(self, blocks: Iterable[Block], ctx: TaskContext) -> list[int]:  # noqa: ARG002
        """Commit the shards of one write task; a retry writes the same files again."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        rows = pa.concat_tables(tables, promote_options="permissive")
        if rows.num_rows:
            rows = rows.filter(pc.not_equal(rows["_seq"], PADDING))
        shards = sorted(pc.unique(rows["_shard"]).to_pylist()) if rows.num_rows else []
        for shard in shards:
            self._commit(shard, rows.filter(pc.equal(rows["_shard"], shard)))
        return shards

    def _commit(self, shard: int, rows: pa.Table) -> None:
        n_rows = int(self._sizes[shard])
        if not self._reporter.begin_commit(shard):
            self._wait_for_others()
            raise StoppingError(f"shard {shard} is left to the next run")
        committed = False
        try:
            before = None
            if self._keeping:
                rows, before = merge_committed_rows(self._store, shard, rows)
            require_owner(self._store, self._owner)
            commit_shard(self._store, shard, rows, n_rows, self._classes, before=before)
            committed = True
        finally:
            self._reporter.end_commit(shard, committed=committed)

    def _wait_for_others(self) -> None:
        """Hold an error back: Ray Data cancels all other tasks at the first, commits among them."""
        deadline = time.monotonic() + DRAIN_SECONDS
        try:
            while self._committing() and time.monotonic() < deadline:
                time.sleep(0.1)
        except RayError:
            return  # nobody knows any more; what is cut off is made again
