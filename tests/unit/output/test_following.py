"""Following a job from its output, with a clock that only the tests move."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from fsspec.implementations.local import LocalFileSystem
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.errors import NoJobError, OutputError
from salip_ray.output import status as following
from salip_ray.output.status import follow
from salip_ray.sources import stores
from tests.unit.output.outputs import commit, write_output


def lease(store, rows, *, good_for=90.0):
    """Write the lease of a running driver."""
    now = datetime.now(UTC)
    content = {
        "owner": "x",
        "host": "node-7",
        "pid": 12,
        "started": now.isoformat(),
        "renewed": now.isoformat(),
        "expires": (now + timedelta(seconds=good_for)).isoformat(),
        "progress": {"images": 5, "rows": {"fetch": 5, "refine": rows}, "seconds": 10.0},
    }
    store.write("lease.json", json.dumps(content).encode())


class Script:
    """A clock that takes one step of a script after each read."""

    def __init__(self, *steps):
        self.steps, self.now = list(steps), 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.steps:
            self.steps.pop(0)()

    def follow(self, output, **options):
        states = follow(str(output), clock=self.clock, sleep=self.sleep, **options)
        return [(status.state, status.committed, status.ahead) for status in states]


def test_job_is_followed_to_its_end(tmp_path):
    store = write_output(tmp_path / "out", shards=1)
    lease(store, 3)
    script = Script(
        lambda: (commit(store, 1), lease(store, 5)),
        lambda: (commit(store, 2), store.delete("lease.json")),
    )
    assert script.follow(store.location) == [
        ("running", 1, 3),
        ("running", 2, 5),
        ("complete", 3, 0),
    ]


def test_dead_driver_is_reported_when_its_lease_expires(tmp_path):
    store = write_output(tmp_path / "out", shards=1)
    lease(store, 3)
    states = Script(lambda: lease(store, 3, good_for=-1.0)).follow(store.location)
    assert states == [("running", 1, 3), ("stopped", 1, 0)]


def test_job_is_waited_for_until_it_starts_and_until_it_is_resumed(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(NoJobError, match=r"holds no run\.json"):
        Script().follow(folder)
    with pytest.raises(NoJobError):
        Script().follow(folder, wait=35.0)

    def begin():
        lease(write_output(folder, shards=0), 0)

    script = Script(
        lambda: None,
        begin,
        lambda: lease(write_output(folder, shards=0), 1, good_for=-1.0),
        lambda: lease(write_output(folder, shards=3), 1, good_for=-1.0),
    )
    assert [state for state, *_ in script.follow(folder, wait=35.0)] == [
        "running",
        "stopped",
        "complete",
    ]


def test_failing_store_is_retried_for_some_minutes(tmp_path, monkeypatch):
    store = write_output(tmp_path / "out", shards=2)
    lease(store, 1)
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    read = LocalFileSystem.cat_file

    def fail(*_, **__):
        raise ConnectionError("503 Slow Down https://h/out?X-Amz-Signature=hush")

    def recover():
        monkeypatch.setattr(LocalFileSystem, "cat_file", read)

    monkeypatch.setattr(LocalFileSystem, "cat_file", fail)
    script = Script(lambda: None, recover, lambda: lease(store, 1, good_for=-1.0))
    assert [state for state, *_ in script.follow(store.location)] == ["running", "stopped"]
    monkeypatch.setattr(LocalFileSystem, "cat_file", fail)
    script = Script()
    with pytest.raises(OutputError, match=r"503 Slow Down https://h/out$"):
        script.follow(store.location)
    assert script.now == following.PATIENCE_SECONDS


def test_command_ends_with_the_status_of_the_job(tmp_path):
    store = write_output(tmp_path / "out")
    ended = CliRunner().invoke(app, ["status", store.location, "--follow"])
    assert ended.exit_code == 0
    assert "complete: 5 of 5 images, 3 of 3 shards; 1 failed" in ended.output
    as_json = CliRunner().invoke(app, ["status", store.location, "--follow", "--json"])
    assert json.loads(as_json.output)["state"] == "complete"
    store.delete("shards/part-00001.parquet")
    stopped = CliRunner().invoke(app, ["status", store.location, "-f"])
    assert stopped.exit_code == 1
    assert "Run the original command again to resume" in stopped.output
    alone = CliRunner().invoke(app, ["status", store.location, "--wait", "5"])
    assert alone.exit_code == 2


def test_line_is_shown_only_if_the_progress_changed(tmp_path, monkeypatch):
    store = write_output(tmp_path / "out", shards=2)
    lease(store, 2)
    steps = [lambda: lease(store, 2), lambda: lease(store, 3), lambda: store.delete("lease.json")]
    patched = partial(follow, sleep=lambda _: steps.pop(0)())
    monkeypatch.setattr(following, "follow", patched)
    options = ["--follow", "--every", "0.1"]
    shown = CliRunner().invoke(app, ["status", store.location, *options]).output.splitlines()
    assert [line.split()[1] for line in shown[:3]] == ["running:", "running:", "stopped:"]
    assert "(fetch 5, refine 2)" in shown[0]
    assert "0.30 images/s, 0:00:07 left (fetch 5, refine 3)" in shown[1]
    assert len(shown) == 4
