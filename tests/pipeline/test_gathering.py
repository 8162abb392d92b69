"""Rows are gathered into shards by tasks that ask for little."""

from __future__ import annotations

import pyarrow as pa
import pytest

from salip_ray.pipeline.assembly import gathered, streaming


@pytest.mark.usefixtures("local_ray")
def test_blocks_are_shards_and_the_task_that_cuts_them_asks_for_less_than_a_cpu():
    import ray

    tables = [pa.table({"row": range(start, start + 3)}) for start in range(0, 30, 3)]
    with streaming():
        blocks = gathered(ray.data.from_arrow(tables), 7).materialize()
    assert [table.num_rows for table in ray.get(blocks.to_arrow_refs())] == [7, 7, 7, 7, 2]
    assert [row["row"] for row in blocks.iter_rows()] == list(range(30))
    # Joined, the two are one operator, which has the resources of the first.
    assert "MapBatches(_as_they_are)->StreamingRepartition" in blocks.stats()
