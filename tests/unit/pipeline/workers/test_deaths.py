"""Images that workers die on: noted, counted, given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from salip_ray.pipeline.monitoring.monitor import Monitor, StageReporter
from salip_ray.pipeline.workers.deaths import (
    MOST_DEATHS,
    MOST_DEATHS_IN_VOLUME,
    Attempts,
    given_up,
    notes_folder,
)
from tests.tiff_files import tiff


class Counting(StageReporter):
    """A line to a monitor in this process."""

    def __init__(self):
        super().__init__()
        self.counts, self.monitor = True, Monitor(["propose"], "run")
        self.asked = 0

    def died(self, note):
        self.monitor.died(note)

    def deaths(self):
        self.asked += 1
        return self.monitor.deaths()


@pytest.fixture
def reporter():
    return Counting()


DYING = """
import os, signal, sys
from pathlib import Path
from salip_ray.pipeline.workers.deaths import Attempts
from tests.unit.pipeline.workers.test_deaths import Counting
attempts = Attempts(Counting(), Path(sys.argv[1]))
with attempts.at("innocent"):
    pass
if sys.argv[2] == "at work":
    with attempts.at("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def die(folder, when="at work"):
    done = subprocess.run([sys.executable, "-c", DYING, str(folder), when], check=False)
    assert done.returncode == (-9 if when == "at work" else 0)


def test_a_death_is_laid_to_the_image_the_worker_was_at(reporter, tmp_path):
    attempts = Attempts(reporter, tmp_path / "notes", every=0)
    assert attempts.deaths() == {}
    for deaths in (1, 2):
        die(tmp_path / "notes")
        assert attempts.deaths() == {"poison": deaths}
    assert not list((tmp_path / "notes").iterdir())


def test_monitor_is_queried_at_most_once_per_interval(reporter, tmp_path):
    patient = Attempts(reporter, tmp_path / "notes", every=3600)
    for _ in range(3):
        assert patient.deaths() == {}
    assert reporter.asked == 1
    for _ in range(3):
        Attempts(reporter, tmp_path / "notes").deaths()  # a new worker asks at once
    assert reporter.asked == 4


def test_worker_that_dies_between_images_counts_no_death(reporter, tmp_path):
    die(tmp_path / "notes", "idle")
    attempts = Attempts(reporter, tmp_path / "notes")
    assert attempts.deaths() == {}


def test_the_living_are_left_alone(reporter, tmp_path):
    mine, other = (Attempts(reporter, tmp_path / "notes", every=0) for _ in range(2))
    with mine.at("slow"):
        assert other.deaths() == {}
    with pytest.raises(ZeroDivisionError), mine.at("bad"):
        1 / 0  # noqa: B018
    assert other.deaths() == {}


def test_death_among_several_files_lists_them_and_blames_none(reporter, tmp_path):
    reporter.died("a\nb\nc")
    reporter.died("b")
    assert reporter.deaths() == {"a": 0, "b": 1, "c": 0}


def test_death_on_a_slice_counts_for_the_slice_and_for_its_volume(reporter):
    for number in range(MOST_DEATHS_IN_VOLUME):
        assert given_up(reporter.deaths(), "other", "ct") is None
        reporter.died(f"slice{number} volume:ct")
    deaths = reporter.deaths()
    assert "workers died on slices of the volume" in str(given_up(deaths, "other", "ct"))
    assert given_up(deaths, "slice0", "mr") is None
    assert given_up(deaths, "ct", None, "ct") is None  # its file was opened well


def test_deaths_while_a_file_is_opened_give_up_all_of_its_slices(reporter):
    for _ in range(MOST_DEATHS):
        assert given_up(reporter.deaths(), "slice", "ct", "ct") is None
        reporter.died("ct")
    assert "opened the file of this image" in str(given_up(reporter.deaths(), "slice", "ct", "ct"))
    assert given_up(reporter.deaths(), "slice of another file", "ct2", "ct2") is None


def test_without_a_monitor_nothing_is_noted(tmp_path):
    attempts = Attempts(StageReporter(), tmp_path / "notes")
    with attempts.at("image"):
        assert attempts.deaths() == {}
    assert not (tmp_path / "notes").exists()


def test_old_runs_are_swept(reporter, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    os.utime(old, (0, time.time() - 2 * 86_400))
    with Attempts(reporter, tmp_path / "notes").at("image"):
        pass
    assert not old.exists()
    assert notes_folder("a") != notes_folder("b")


def pages_of(count):
    """Return a TIFF file of small pages."""
    page = np.arange(64, dtype=np.uint8).reshape(8, 8)
    return tiff(*[page + number for number in range(count)])


# Fetches and decodes some files as a task of a job does; dies in one function at one of the files.
TASK = """
import json, os, signal, sys
import pyarrow as pa
from salip_ray.config import load_config
from salip_ray.output.manifest import TODO_SCHEMA
from salip_ray.pipeline.decoding import decode, files
from salip_ray.pipeline.monitoring.monitor import StageReporter

class Reporter(StageReporter):
    def __init__(self):
        super().__init__()
        self.counts, self.notes = True, task_input["notes"]
    def deaths(self):
        return task_input["deaths"]

def uris_of(argument):
    if isinstance(argument, pa.Table):
        return argument["uri"].to_pylist()
    return [row["uri"] for row in argument] if isinstance(argument, list) else [str(argument)]

module = files if hasattr(files, sys.argv[1]) else decode
work = getattr(module, sys.argv[1])
def work_or_die(first, *more):
    is_given_up = isinstance(more[0], Exception)
    if not is_given_up and any("poison" in uri for uri in uris_of(first)):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(first, *more)
setattr(module, sys.argv[1], work_or_die)
config = load_config({"task": {"name": "t", "prompts": {"lungs": ["the lungs"]}}})
for line in sys.stdin:
    task_input = json.loads(line)
    worker = os.fork()
    if not worker:
        batch = pa.Table.from_pylist(task_input["rows"], schema=TODO_SCHEMA)
        tables = decode.fetch_and_decode(batch, config, None, Reporter())
        rows = [row for table in tables for row in table.select(["status", "error"]).to_pylist()]
        print(json.dumps(rows), flush=True)
        os._exit(0)
    if os.waitpid(worker, 0)[1] == signal.SIGKILL:
        print("died", flush=True)
"""


def run_until_done(reporter, rows, function, tmp_path, monkeypatch):
    """Run the task as Ray does: again after each death. Return its rows, and the deaths."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    attempts = Attempts(reporter, notes_folder("run"), every=0)
    todo = [{"shard": 0, "seq": number, **row} for number, row in enumerate(rows)]
    deaths, answer = 0, "died\n"
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", TASK, function], **pipe) as task:
        while deaths <= 20:
            task_input = {"rows": todo, "deaths": dict(attempts.deaths(now=True)), "notes": "run"}
            task.stdin.write(f"{json.dumps(task_input)}\n")
            task.stdin.flush()
            answer = task.stdout.readline()
            if answer != "died\n":
                return json.loads(answer), deaths
            deaths += 1
    pytest.fail("the file was never given up")


@pytest.mark.parametrize(
    ("function", "most"), [("fetch_files", 4), ("open_file", 3), ("find_references", 3)]
)
def test_file_that_kills_its_worker_is_an_error_row_and_no_other_is(
    reporter, tmp_path, monkeypatch, function, most
):
    files = [tmp_path / name for name in ("a.tif", "poison.tif", "b.tif", "c.tif")]
    for file in files:
        file.write_bytes(pages_of(1))
    rows = [{"image_id": file.stem, "uri": str(file)} for file in files]
    labelled, deaths = run_until_done(reporter, rows, function, tmp_path, monkeypatch)
    assert deaths == most  # one death of the four together, then three of the one alone
    assert [row["status"] for row in labelled] == ["ok", "error", "ok", "ok"]
    assert labelled[1]["error"]["type"] == "WorkerDiedError"
    assert "3 workers died on this image" in labelled[1]["error"]["message"]


@pytest.mark.parametrize("function", ["fetch_files", "open_file"])
def test_volume_that_kills_its_worker_costs_three_workers_whatever_its_slices(
    reporter, tmp_path, monkeypatch, function
):
    rows = []
    for name in ("a.tif", "poison.tif", "b.tif"):
        (tmp_path / name).write_bytes(pages_of(6))
        rows += [
            {"image_id": f"{name}#{page}", "uri": str(tmp_path / name), "volume": name}
            | {"index": page, "slice": page}
            for page in range(6)
        ]
    labelled, deaths = run_until_done(reporter, rows, function, tmp_path, monkeypatch)
    assert deaths == MOST_DEATHS
    assert [row["status"] for row in labelled] == ["ok"] * 6 + ["error"] * 6 + ["ok"] * 6
    assert {row["error"]["message"].partition(":")[0] for row in labelled[6:12]} == {
        "3 workers died while they opened the file of this image, so it was given up"
    }


def test_volume_whose_slices_kill_their_workers_is_given_up(reporter, tmp_path, monkeypatch):
    (tmp_path / "poison.tif").write_bytes(pages_of(9))
    rows = [
        {"image_id": f"{page}", "uri": str(tmp_path / "poison.tif"), "volume": "v"}
        | {"index": page, "slice": page}
        for page in range(9)
    ]
    labelled, deaths = run_until_done(reporter, rows, "_decoded", tmp_path, monkeypatch)
    assert deaths == MOST_DEATHS_IN_VOLUME
    assert {row["status"] for row in labelled} == {"error"}
    reasons = [row["error"]["message"].partition(",")[0] for row in labelled]
    assert reasons[:5] == ["3 workers died on this image"] * 5
    assert reasons[5:] == ["15 workers died on slices of the volume of this image"] * 4
