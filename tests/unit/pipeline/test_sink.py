"""The sink's gate: a commit that may not begin does not end those under way."""

from __future__ import annotations

import pyarrow as pa
import pytest
from ray.exceptions import GetTimeoutError

from salip_ray.output.store import Store
from salip_ray.pipeline.monitor import StageReporter
from salip_ray.pipeline.sink import ShardSink, StoppingError

ROWS = pa.table({"_shard": pa.array([7], pa.int32()), "_seq": pa.array([0], pa.int32())})


class Closed(StageReporter):
    def begin_commit(self, shard):
        return False


def refused(tmp_path, committing):
    store = Store(tmp_path / "out")
    sink = ShardSink(
        store, sizes=[1] * 8, classes={}, owner="me", reporter=Closed(), committing=committing
    )
    with pytest.raises(StoppingError, match="shard 7 is left to the next run"):
        sink.write([ROWS], None)
    assert store.names() == []


def test_at_a_closed_gate_the_commits_under_way_are_waited_for(tmp_path):
    under_way = [{3, 4}, {4}, set()]
    refused(tmp_path, lambda: under_way.pop(0))
    assert under_way == []


def test_where_nobody_knows_what_is_under_way_nothing_is_waited_for(tmp_path):
    def lost():
        raise GetTimeoutError("the monitor is gone")

    refused(tmp_path, lost)
