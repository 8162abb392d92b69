"""The benchmark of fetch tasks runs those of a job, and reports what models wait."""

from __future__ import annotations

import pytest

from benchmarks.feed import Feed, delayed_server, feed, store


def test_tasks_fetch_every_image_of_a_slow_server(tmp_path):
    names = store(tmp_path, 9, side=64)
    with delayed_server(tmp_path, latency=0.01) as address:
        result = feed([f"{address}/{name}" for name in names], tasks=2)
    assert (result.tasks, result.images) == (2, 9)
    assert result.seconds > 0.01
    assert result.cpu_seconds > 0


def test_an_image_that_is_missing_ends_the_measurement(tmp_path):
    store(tmp_path, 1, side=64)
    with (
        delayed_server(tmp_path, latency=0) as address,
        pytest.raises(RuntimeError, match="a fetch task failed"),
    ):
        feed([f"{address}/absent.png"], tasks=1)


def test_models_wait_for_what_the_tasks_do_not_deliver():
    slow = Feed(tasks=4, images=100, seconds=10.0, cpu_seconds=5.0)
    assert slow.rate == 10
    assert slow.waiting(40) == pytest.approx(0.75)
    assert slow.waiting(5) == 0
    assert slow.cores(40) == pytest.approx(2.0)
