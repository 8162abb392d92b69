"""A job that is told to stop, and one whose output fails, on a local Ray."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from salip_ray import label
from salip_ray.errors import JobError
from salip_ray.output.store import Store
from salip_ray.pipeline import run as execute
from salip_ray.pipeline.commit_gate import CommitGate
from salip_ray.pipeline.sink import ShardSink
from tests.conftest import check_exactly_once

pytestmark = pytest.mark.usefixtures("local_ray")


def wait_for(*paths, seconds=120):
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.05)


def slow_sink(marks):
    """A sink whose shard 0 is being committed when another asks whether it may be.

    By value, as workers know nothing of this file.
    """

    class SlowStore(Store):
        def write(self, name, data):
            if name == "shards/part-00000.parquet":
                (marks / "committing").touch()
                wait(marks / "closed")
                time.sleep(5)
            super().write(name, data)

    class SlowSink(ShardSink):
        def __init__(self, store, **settings):
            super().__init__(SlowStore(store.location), **settings)

        def _commit(self, shard, rows):
            if shard:
                (marks / "waiting").touch()
                wait(marks / "closed")
            super()._commit(shard, rows)

    def wait(path, seconds=120):
        deadline = time.monotonic() + seconds
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    return SlowSink


def test_a_stopped_job_finishes_the_commits_under_way(images, small_config, tmp_path, monkeypatch):
    marks, output = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    before = signal.getsignal(signal.SIGTERM)
    drain = CommitGate.drain

    def close_and_drain(gate):
        gate.close()
        (marks / "closed").touch()
        drain(gate)

    monkeypatch.setattr(CommitGate, "drain", close_and_drain)

    def stop():
        wait_for(marks / "committing", marks / "waiting")
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(execute, "ShardSink", slow_sink(marks))
        threading.Thread(target=stop, daemon=True).start()
        with pytest.raises(JobError) as stopped:
            label(images, output, small_config(), quiet=True)
    assert str(stopped.value).startswith(
        "stopped by SIGTERM: 1 of 3 shards committed; the images of"
    )
    assert [path.name for path in output.glob("shards/*")] == ["part-00000.parquet"]
    assert signal.getsignal(signal.SIGTERM) is before
    label(images, output, small_config(), quiet=True)
    check_exactly_once(output, 11)


def test_failed_write_is_one_line_with_progress(images, small_config, tmp_path, monkeypatch):
    class FullStore(Store):
        def write(self, name, data):
            with self._explaining("write", name):
                raise OSError(28, "No space left on device")

    class FullSink(ShardSink):
        def __init__(self, store, **settings):
            super().__init__(FullStore(store.location), **settings)

    monkeypatch.setattr(execute, "ShardSink", FullSink)
    with pytest.raises(JobError) as broken:
        label(images, tmp_path / "out", small_config(), quiet=True)
    message = str(broken.value)
    assert message.startswith(f"the job failed: StoreError: cannot write {tmp_path}/out/masks/")
    assert "No space left on device" in message
    assert (
        "; 0 of 3 shards committed; the images of the others start again. Run the same" in message
    )
    assert "\n" not in message
