"""Images that workers die on: noted, counted, given up."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from salip_ray.pipeline.monitoring.monitor import Monitor, StageReporter
from salip_ray.pipeline.workers.deaths import Attempts, notes_folder


class Counting(StageReporter):
    """A line to a monitor in this process."""

    def __init__(self):
        super().__init__()
        self.counts, self.monitor = True, Monitor(["propose"], "run")
        self.asked = 0

    def died(self, image_id):
        self.monitor.died(image_id)

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


def test_the_monitor_is_asked_now_and_then(reporter, tmp_path):
    patient = Attempts(reporter, tmp_path / "notes", every=3600)
    for _ in range(3):
        assert patient.deaths() == {}
    assert reporter.asked == 1
    for _ in range(3):
        Attempts(reporter, tmp_path / "notes").deaths()  # a new worker asks at once
    assert reporter.asked == 4


def test_a_worker_that_ends_between_images_accuses_nobody(reporter, tmp_path):
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
