"""The Ray Data sink: receive whole shards, and commit them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor

from salip_ray.output.commit import commit_shard
from salip_ray.output.committed_rows import merge_committed_rows
from salip_ray.output.lease import require_owner
from salip_ray.output.manifest import PADDING
from salip_ray.output.store import Store
from salip_ray.pipeline.commit_gate import CommitGate
from salip_ray.schema import SCHEMA_VERSION


class ShardSink(Datasink[list[int]]):
    """Commit each block, which must be one shard or a few whole shards.

    Args:
        store: the output.
        sizes: the number of rows of each shard, by the shard's number.
        classes: class ids by label.
        owner: id of the lease of the job, which is checked before each commit.
        gate: asked before each commit.
        finish: makes the rows of a shard final, before they are merged.
        merge: the rows replace some of the rows of shards that are committed already.
        version: schema version of the output.
    """

    def __init__(
        self,
        store: Store,
        *,
        sizes: Sequence[int] | npt.NDArray[np.int64],
        classes: Mapping[str, int],
        owner: str,
        gate: CommitGate,
        finish: Callable[[pa.Table], pa.Table] | None = None,
        merge: bool = False,
        version: int = SCHEMA_VERSION,
    ) -> None:
        self._store = store
        self._sizes = np.asarray(sizes)
        self._classes = dict(classes)
        self._owner = owner
        self._gate = gate
        self._finish = finish
        self._merge = merge
        self._version = version

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[int]:  # noqa: ARG002
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
        self._gate.begin(shard)
        committed = False
        try:
            before = None
            if self._finish is not None:
                rows = self._finish(rows)
            if self._merge:
                rows, before = merge_committed_rows(self._store, shard, rows)
            # No fence: a pause after this check may let a late write through, of the same bytes.
            require_owner(self._store, self._owner)
            commit_shard(
                self._store,
                shard,
                rows,
                n_rows,
                self._classes,
                before=before,
                version=self._version,
            )
            committed = True
        finally:
            self._gate.end(shard, committed=committed)
