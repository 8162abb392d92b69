"""Jobs whose workers die in sequence are ended; others are not."""

from __future__ import annotations

import threading

import pytest

from salip_ray.cluster.ray_private import LostWorker
from salip_ray.pipeline.monitoring import losses
from salip_ray.pipeline.monitoring.losses import (
    MOST_LOOKS,
    MOST_LOSSES,
    LossWatch,
    count_kernel_kills,
)

EACH_LOOK = MOST_LOSSES // MOST_LOOKS + 1


class Cluster:
    """Loses some workers before each look."""

    def __init__(self, *, out_of_memory=True, kernel_kills=lambda: 0):
        self.lost, self.done, self.stopped = {}, 0, []
        self._out_of_memory = out_of_memory
        self.watch = LossWatch(
            lambda: dict(self.lost), self.rows_done, self.stopped.append, kernel_kills
        )

    def rows_done(self):
        if self.done is None:
            raise RuntimeError("the monitor was killed, too")
        return self.done

    def look(self, losses=EACH_LOOK):
        for _ in range(losses):
            name = f"worker {len(self.lost)}"
            self.lost[name] = LostWorker(self._out_of_memory, "it crashed")
        return self.watch.look()


def looks_until_the_end(cluster, most=4 * MOST_LOOKS):
    return next((n for n in range(most) if cluster.look()), None)


@pytest.mark.parametrize("monitor", ["answers", "is killed as well"])
def test_workers_that_the_memory_monitor_kills_end_the_job_with_an_explanation(monitor):
    cluster = Cluster()
    cluster.done = 0 if monitor == "answers" else None
    assert looks_until_the_end(cluster) is not None
    (reason,) = cluster.stopped
    assert "workers died in sequence, and no image was done" in reason
    assert "Ray's memory monitor killed" in reason
    assert "a machine with more memory" in reason


def test_workers_that_the_kernel_kills_for_memory_end_the_job_with_an_explanation(tmp_path):
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 7\noom_kill 3\n")
    cluster = Cluster(out_of_memory=False, kernel_kills=lambda: count_kernel_kills(counters))
    counters.write_text("pgfault 9\noom_kill 103\n")
    assert looks_until_the_end(cluster) is not None
    assert "the kernel of this machine killed 100 processes meanwhile" in cluster.stopped[0]
    assert "a machine with more memory" in cluster.stopped[0]
    assert count_kernel_kills(tmp_path / "missing") == 0


def test_workers_that_crash_end_the_job_with_the_words_of_ray():
    cluster = Cluster(out_of_memory=False)
    assert looks_until_the_end(cluster) is not None
    assert "The last one: it crashed." in cluster.stopped[0]
    assert "memory monitor" not in cluster.stopped[0]


def test_job_that_makes_progress_is_not_ended():
    cluster = Cluster()
    for _ in range(5):
        assert all(not cluster.look() for _ in range(MOST_LOOKS - 1))
        cluster.done += 1
    assert cluster.stopped == []


def test_lost_node_with_many_workers_does_not_end_a_job():
    cluster = Cluster()
    cluster.look(0)
    assert not cluster.look(10 * MOST_LOSSES)
    assert all(not cluster.look(0) for _ in range(5 * MOST_LOOKS))


def test_losses_of_an_earlier_run_do_not_count():
    cluster = Cluster()
    cluster.look(10 * MOST_LOSSES)
    assert all(not cluster.look(1) for _ in range(2 * MOST_LOOKS))


def test_watch_looks_until_it_stops_the_job_and_survives_errors(monkeypatch):
    monkeypatch.setattr(losses, "_LOOK_SECONDS", 0.001)
    stopped = threading.Event()
    answers = iter([RuntimeError("the GCS restarts")])

    def lost(known={}):  # noqa: B006
        for error in answers:
            raise error
        known |= {f"{len(known)}-{n}": LostWorker(True, "") for n in range(EACH_LOOK)}
        return known

    with LossWatch(lost, lambda: 0, lambda _: stopped.set()).running():
        assert stopped.wait(60)
