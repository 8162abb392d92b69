"""A commit that may not begin does not end the commits under way."""

from __future__ import annotations

import pyarrow as pa
import pytest
from ray.exceptions import GetTimeoutError

from salip_ray.output.store import Store
from salip_ray.pipeline import commit_gate
from salip_ray.pipeline.commit_gate import CommitGate, GateState, StoppingError
from salip_ray.pipeline.sink import ShardSink

ROWS = pa.table({"_shard": pa.array([7], pa.int32()), "_seq": pa.array([0], pa.int32())})


class LocalActor:
    """Calls the methods of an object as Ray calls those of an actor."""

    def __init__(self, state):
        self._state = state

    def __getattr__(self, name):
        method = getattr(self._state, name)
        call = type("Call", (), {"remote": lambda _, *values: lambda: method(*values)})
        return call()


@pytest.fixture(autouse=True)
def local_get(monkeypatch):
    monkeypatch.setattr(commit_gate.ray, "get", lambda call, timeout=None: call())


class Closed(GateState):
    """A closed gate with commits under way that end in sequence."""

    def __init__(self, *under_way):
        super().__init__()
        self.close()
        self.under_way = list(under_way)

    def committing(self):
        return self.under_way.pop(0)


def refuse(tmp_path, state):
    store = Store(tmp_path / "out")
    sink = ShardSink(
        store, sizes=[1] * 8, classes={}, owner="me", gate=CommitGate(LocalActor(state))
    )
    with pytest.raises(StoppingError, match="shard 7 is left to the next run"):
        sink.write([ROWS], None)
    assert store.names() == []


def test_a_closed_gate_waits_for_the_commits_under_way(tmp_path):
    state = Closed({3, 4}, {4}, set())
    refuse(tmp_path, state)
    assert state.under_way == []


def test_closed_gate_does_not_wait_for_lost_monitor(tmp_path):
    class Lost(Closed):
        def committing(self):
            raise GetTimeoutError("the monitor is gone")

    refuse(tmp_path, Lost())


def test_commit_is_in_progress_from_begin_to_end():
    state = GateState()
    gate = CommitGate(LocalActor(state))
    gate.begin(3)
    assert state.committing() == {3}
    state.end_commit(3, False)
    assert state.committing() == set()
