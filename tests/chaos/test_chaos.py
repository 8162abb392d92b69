"""The short chaos, on one small cluster; ``make chaos`` is the long one.

The longer ones take minutes: ``pytest -m slow tests/chaos`` runs them here.
"""

from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest

from tests.chaos import outputs
from tests.chaos.attacks import alter_files, pause_drivers
from tests.chaos.harness import Tally, draw_images, small_cluster
from tests.chaos.hooks import POISON
from tests.chaos.outputs import compare
from tests.chaos.scenarios import World, kill_drivers, kill_workers, plant_files


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos")
    images = draw_images(folder / "images", 12)
    with small_cluster(nodes=1) as cluster:
        yield World(cluster, images, folder, random.Random(0))


def test_a_driver_killed_inside_a_commit_loses_nothing(world):
    tally = Tally()
    kill_drivers(world, 1, tally, in_commit=1)
    assert tally.counts == {"driver_kills": 1}
    assert tally.events[0].phase == "commit"
    assert tally.damage.total == 0


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(world):
    tally = Tally()
    kill_workers(world, 1, tally)
    assert tally.counts == {"worker_kills": 1}
    assert tally.damage.total == 0


def test_altered_files_are_noticed(world):
    tally = Tally()
    alter_files(world, 8, tally)
    assert tally.counts == {"altered_files": 8}
    assert tally.damage.total == 0


def test_altered_files_that_verify_does_not_name_are_reported(world, monkeypatch):
    sound = outputs.verify(str(world.undisturbed()))
    monkeypatch.setattr(outputs, "verify", lambda *_, **__: sound)
    tally = Tally()
    alter_files(world, 3, tally)
    assert tally.damage.unnoticed == 3


@pytest.mark.slow
def test_a_paused_driver_changes_nothing_after_another_has_finished(world):
    tally = Tally()
    pause_drivers(world, 1, tally)
    assert tally.counts == {"driver_pauses": 1}
    assert tally.damage.total == 0


@pytest.mark.slow
def test_files_that_kill_their_workers_are_error_rows_and_change_no_other(world):
    tally = Tally()
    plant_files(world, 1, tally)
    assert tally.counts["planted_deaths"] >= 6
    assert tally.damage.total == 0


@pytest.mark.slow
def test_a_broken_sink_is_reported_as_damage(world):
    calm = world.undisturbed()
    job = world.job("broken", hook="broken_sink")
    job.start()
    assert job.wait()
    damage = compare(job.folder, calm)
    assert damage.rows_lost == 1
    assert damage.rows_twice == 1
    assert damage.bytes_different >= 1


@pytest.mark.slow
def test_an_image_that_kills_its_workers_is_an_error_row_and_changes_no_other(world):
    job = world.job("poison", hook="poison")
    job.start()
    assert job.wait()
    rows = pq.read_table(job.folder / "shards").to_pylist()
    calm = {
        row["image_id"]: row for row in pq.read_table(world.undisturbed() / "shards").to_pylist()
    }
    assert sorted(calm) == sorted(row["image_id"] for row in rows)
    assert any(row["uri"].endswith(POISON) for row in rows)
    for row in rows:
        if row["uri"].endswith(POISON):
            assert row["error"]["type"] == "WorkerDiedError"
            assert "3 workers died on this image" in row["error"]["message"]
        else:
            assert str(row) == str(calm[row["image_id"]])
