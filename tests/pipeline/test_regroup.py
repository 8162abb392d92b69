"""Rows are regroup into shards by tasks that ask for little."""

from __future__ import annotations

import pyarrow as pa
import pytest

from salip_ray.cluster.resources import RECUT_CPUS
from salip_ray.pipeline.dataflow import regroup, streaming


@pytest.mark.usefixtures("local_ray")
def test_blocks_are_shards_and_the_task_that_cuts_them_asks_for_less_than_a_cpu():
    import ray
    from ray.data._internal.logical.optimizers import get_execution_plan

    tables = [pa.table({"row": range(start, start + 3)}) for start in range(0, 30, 3)]
    with streaming():
        shards = regroup(ray.data.from_arrow(tables), 7)
        plan = get_execution_plan(shards._logical_plan)
        blocks = shards.materialize()
    plan = plan[0] if isinstance(plan, tuple) else plan
    assert plan.dag._ray_remote_args["num_cpus"] == RECUT_CPUS < 1
    assert [table.num_rows for table in ray.get(blocks.to_arrow_refs())] == [7, 7, 7, 7, 2]
    assert [row["row"] for row in blocks.iter_rows()] == list(range(30))
