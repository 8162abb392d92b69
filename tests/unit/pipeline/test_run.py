"""What is said when the Ray part of a job breaks down."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from ray.exceptions import RayTaskError

from salip_ray.errors import OutputError
from salip_ray.output.manifest import make_manifest
from salip_ray.output.store import Store
from salip_ray.pipeline.run import _first_cause, _how_far, _is_stopping
from salip_ray.pipeline.sink import StoppingError
from salip_ray.sources.listing import LISTING_SCHEMA, Listing


def chained(*problems):
    """Exceptions as they are raised from one another, the last one first."""
    for problem, cause in itertools.pairwise(problems):
        problem.__cause__ = cause
    return problems[0]


def from_a_task(problem):
    """An exception of a worker as the driver gets it: of its class, its text a traceback."""
    wrapped = RayTaskError("Write", "Traceback\n  File x\nred", problem, "ray::", 1, "127.0.0.1")
    return wrapped.as_instanceof_cause()


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ValueError("no luck"), "ValueError: no luck"),
        (chained(RuntimeError("wrapped"), OSError(28, "disk full")), "disk full"),
        # As Ray Data raises it: its own end of the chain says nothing.
        (chained(RuntimeError("Traceback\n  TypeError: odd"), Exception()), "TypeError: odd"),
        (
            ValueError("no luck\nFailed to apply UDF transform after 1/1 attempts.\nTo change ..."),
            "ValueError: no luck",
        ),
        (KeyError(), "KeyError: no message"),
        (from_a_task(OutputError("cannot write /out")), "OutputError: cannot write /out"),
    ],
)
def test_the_first_cause_that_speaks_is_named(problem, said):
    told = _first_cause(problem)
    assert told.startswith("the job broke down: ")
    assert told.endswith(said)


def test_a_closed_gate_is_told_from_what_is_broken():
    gate = StoppingError("shard 7 is left to the next run")
    assert _is_stopping(from_a_task(gate))
    assert _is_stopping(chained(RuntimeError("wrapped"), from_a_task(gate), Exception()))
    assert not _is_stopping(from_a_task(RuntimeError("no luck")))


def test_a_store_that_is_away_does_not_hide_what_broke_the_job(tmp_path, monkeypatch):
    listing = pa.Table.from_pylist([{"uri": "/a"}, {"uri": "/b"}], schema=LISTING_SCHEMA)
    plan = make_manifest(Listing(listing), 1)
    store = Store(tmp_path)
    assert _how_far(store, plan).startswith("0 of 2 shards are committed")

    def away(*_):
        raise OutputError("cannot read s3://out/shards: 503 Slow Down")

    monkeypatch.setattr(Store, "names", away)
    assert "not known (cannot read s3://out/shards: 503 Slow Down)" in _how_far(store, plan)
