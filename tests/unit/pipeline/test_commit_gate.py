"""Signals: commits in progress are finished, and a job that cleans up is not interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from salip_ray.pipeline.commit_gate import GracefulStop, Stopped


@pytest.fixture
def signals():
    """Signals that came while no context took them; they would have ended the process."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


class Drain:
    """Take as long as the test needs."""

    def __init__(self):
        self.may_end, self.began, self.over = (threading.Event() for _ in range(3))

    def __call__(self):
        self.began.set()
        assert self.may_end.wait(60)
        self.over.set()


def tell():
    os.kill(os.getpid(), signal.SIGTERM)


def silent(line):
    pass


def job(stop, *steps):
    """A job that does these things, one after another."""
    with stop:
        for step in steps:
            step()


def a_minute():
    time.sleep(60)


def soon(action):
    return threading.Timer(0.5, action).start


def test_the_first_signal_drains_and_then_stops(signals):
    drain, lines = Drain(), []
    stop = GracefulStop(drain, lines.append)
    with pytest.raises(Stopped, match="SIGTERM"):
        job(stop, tell, drain.began.wait, drain.may_end.set, a_minute)
    assert drain.over.is_set()
    assert "finishing the commits in progress" in lines[0]
    assert stop.signal is signal.SIGTERM
    tell()
    assert signals == [signal.SIGTERM]  # the handler is back


def test_a_job_that_ends_while_it_drains_is_left_alone(signals):
    drain = Drain()
    job(GracefulStop(drain, silent), tell, drain.began.wait, soon(drain.may_end.set))
    assert drain.over.is_set()
    time.sleep(0.2)
    assert signals == []


def test_a_job_that_breaks_down_while_it_drains_waits_for_the_commits(signals):
    drain = Drain()
    stop = GracefulStop(drain, silent)
    with pytest.raises(ZeroDivisionError):
        job(stop, tell, drain.began.wait, soon(drain.may_end.set), lambda: 1 / 0)
    assert drain.over.is_set()
    assert stop.signal is signal.SIGTERM
    time.sleep(0.2)
    assert signals == []


def test_a_second_signal_waits_for_nothing(signals):
    drain = Drain()
    with pytest.raises(Stopped, match="SIGTERM"):
        job(GracefulStop(drain, silent), tell, drain.began.wait, tell, a_minute)
    assert not drain.over.is_set()
    drain.may_end.set()
    assert drain.over.wait(60)
    time.sleep(0.2)
    assert signals == []


def test_a_second_signal_ends_the_wait_of_a_job_that_is_over(signals):
    drain = Drain()
    with pytest.raises(Stopped, match="SIGTERM"):
        job(GracefulStop(drain, silent), tell, drain.began.wait, soon(tell))
    assert not drain.over.is_set()
    drain.may_end.set()


def test_another_thread_stops_the_job_with_a_reason(signals):
    drain, lines = Drain(), []
    stop = GracefulStop(drain, lines.append)
    drain.may_end.set()
    with pytest.raises(Stopped):
        job(stop, soon(lambda: stop.request("no worker survives")), a_minute)
    assert stop.reason == "no worker survives"
    assert lines == [
        "ending the job: finishing the commits in progress; send the signal again to stop at once"
    ]
    stop.request("too late")  # outside of the context it stops nothing
    assert stop.reason == "no worker survives"


def test_failing_drain_still_stops_job(signals):
    def fails():
        raise OSError("gone")

    with pytest.raises(Stopped, match="SIGTERM"):
        job(GracefulStop(fails, silent), tell, a_minute)


def test_off_the_main_thread_nothing_is_installed(signals):
    inside = []

    def job():
        with GracefulStop(Drain(), silent):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert inside == [signal.getsignal(signal.SIGTERM)]
