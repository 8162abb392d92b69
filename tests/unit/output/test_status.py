"""The progress of a job, read from its output."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import NoCredentialsError
from fsspec.implementations.local import LocalFileSystem
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.errors import StoreError
from salip_ray.output.reader import LabelOutput
from salip_ray.output.status import StatusReader, read_status
from salip_ray.output.store import Store
from salip_ray.sources import stores
from tests.unit.output.outputs import commit, write_output


@pytest.fixture
def output(tmp_path):
    return write_output(tmp_path / "out")


def test_status_of_a_complete_and_of_a_stopped_job(output):
    status = read_status(output.location)
    assert (status.state, status.done, status.failed, status.images) == ("complete", 5, 1, 5)
    output.delete("shards/part-00000.parquet")
    status = read_status(output.location)
    assert (status.state, status.done, status.committed, status.shards) == ("stopped", 3, 2, 3)
    assert status.driver is None
    shown = CliRunner().invoke(app, ["status", output.location])
    assert "3 of 5 images" in shown.output


def test_status_of_a_running_job_has_rate_and_time_left(output):
    output.delete("shards/part-00000.parquet")
    now = datetime.now(UTC)
    lease = {
        "owner": "x",
        "host": "node-7",
        "pid": 12,
        "started": "2026-01-01T00:00:00+00:00",
        "renewed": now.isoformat(),
        "expires": (now + timedelta(seconds=60)).isoformat(),
        "progress": {"images": 101, "rows": {"refine": 50}, "seconds": 100.0},
    }
    output.write("lease.json", json.dumps(lease).encode())
    status = read_status(output.location)
    assert status.state == "running"
    assert (status.driver.host, status.ahead) == ("node-7", 50)
    assert (status.images_per_second, status.seconds_left) == (0.5, 102.0)
    shown = json.loads(CliRunner().invoke(app, ["status", output.location, "--json"]).output)
    assert shown["driver"]["pid"] == 12
    output.write("lease.json", json.dumps({**lease, "expires": lease["started"]}).encode())
    assert read_status(output.location).state == "stopped"


def test_reader_fetches_only_changed_statistics(tmp_path, monkeypatch):
    store = write_output(tmp_path / "out", shards=1)
    reader = StatusReader(store.location)
    assert (reader.read().done, reader.read().committed) == (2, 1)
    fetched = []
    read = Store.read_all
    monkeypatch.setattr(
        Store, "read_all", lambda self, names: fetched.extend(names) or read(self, names)
    )
    reader.read()
    assert fetched == []
    commit(store, 1)
    assert reader.read().done == 4
    assert fetched == ["stats/part-00001.json"]
    stats = json.loads(store.read("stats/part-00000.json"))
    stats["status"] = {"ok": 2}  # as after a retry
    store.write("stats/part-00000.json", json.dumps(stats).encode())
    assert reader.read().failed == 0


def test_output_may_have_brackets_in_its_name(tmp_path):
    status = read_status(write_output(tmp_path / "out[1]").location)
    assert (status.state, status.done, status.failed) == ("complete", 5, 1)


def test_store_that_does_not_answer_is_one_line(output, monkeypatch):
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    reader = StatusReader(output.location)

    def refuse(*_, **__):
        raise NoCredentialsError

    monkeypatch.setattr(LocalFileSystem, "cat_file", refuse)
    for read in (
        lambda: LabelOutput.open(output.location),
        lambda: read_status(output.location),
        reader.read,
    ):
        with pytest.raises(StoreError, match=r"cannot read \S+: Unable to locate credentials"):
            read()


def test_statistics_that_cannot_be_read_once_are_retried(output, monkeypatch):
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    local = LocalFileSystem.cat_file
    asked = []

    def busy(self, path, *more, **others):
        asked.append(path.rpartition("/")[2])
        if asked.count("part-00001.json") == 1 and path.endswith("part-00001.json"):
            raise OSError("503 Slow Down")
        return local(self, path, *more, **others)

    monkeypatch.setattr(LocalFileSystem, "cat_file", busy)
    assert read_status(output.location).done == 5
    assert (asked.count("part-00000.json"), asked.count("part-00001.json")) == (1, 2)


def test_manifest_outside_of_the_output(tmp_path):
    names = str(tmp_path / "elsewhere" / "names.parquet")
    store = write_output(tmp_path / "out", manifest=names)
    assert read_status(store.location, manifest=names).state == "complete"
    result = CliRunner().invoke(app, ["status", store.location, "--manifest", names])
    assert "3 of 3 shards" in result.output
    without = CliRunner().invoke(app, ["status", store.location])
    assert without.exit_code == 2
    assert "stored elsewhere" in without.output
