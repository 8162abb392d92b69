"""The message of a job that failed on Ray."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from ray.exceptions import RayTaskError

from salip_ray.errors import OutputError
from salip_ray.output.manifest import make_manifest
from salip_ray.output.store import Store
from salip_ray.pipeline import run
from salip_ray.pipeline.commit_gate import StoppingError
from salip_ray.pipeline.job import Job
from salip_ray.pipeline.run import _describe_cause, _describe_progress, _is_stopping
from salip_ray.sources.listing import LISTING_SCHEMA, Listing


def chained(*problems):
    """Chain exceptions by their causes, and return the outermost."""
    for problem, cause in itertools.pairwise(problems):
        problem.__cause__ = cause
    return problems[0]


def from_a_task(problem):
    """Return an exception of a worker as the driver gets it: its text is a traceback."""
    wrapped = RayTaskError("Write", "Traceback\n  File x\nred", problem, "ray::", 1, "127.0.0.1")
    return wrapped.as_instanceof_cause()


@pytest.mark.parametrize(
    ("problem", "message"),
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
def test_the_innermost_error_with_a_message_is_named(problem, message):
    line = _describe_cause(problem)
    assert line.startswith("the job failed: ")
    assert line.endswith(message)


def test_a_closed_gate_is_not_taken_for_a_failure():
    gate = StoppingError("shard 7 is left to the next run")
    assert _is_stopping(from_a_task(gate))
    assert _is_stopping(chained(RuntimeError("wrapped"), from_a_task(gate), Exception()))
    assert not _is_stopping(from_a_task(RuntimeError("no luck")))


def test_an_unreachable_store_does_not_hide_the_cause(tmp_path, monkeypatch):
    listing = pa.Table.from_pylist([{"uri": "/a"}, {"uri": "/b"}], schema=LISTING_SCHEMA)
    store = Store(tmp_path)
    job = Job(None, make_manifest(Listing(listing), 1), store, None, None, None, None)
    again = "0 of 2 shards committed; the images of the others start again. Run the same command"
    assert _describe_progress(job).startswith(again)

    def away(*_):
        raise OutputError("cannot read s3://out/shards: 503 Slow Down")

    monkeypatch.setattr(run, "committed_shards", away)
    assert "unknown (cannot read s3://out/shards: 503 Slow Down)" in _describe_progress(job)
