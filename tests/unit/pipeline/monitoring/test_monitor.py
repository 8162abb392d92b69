"""Tallies reach the monitor together, a moment after the rows."""

from __future__ import annotations

import threading
import time

from salip_ray.pipeline.monitoring import monitor
from salip_ray.pipeline.monitoring.monitor import Tally, TallyBuffer


def test_rows_of_a_moment_are_sent_together(monkeypatch):
    monkeypatch.setattr(monitor, "_FLUSH_SECONDS", 0.05)
    batches = []
    arrived = threading.Event()

    def send(tallies):
        batches.append(dict(tallies))
        arrived.set()

    buffer = TallyBuffer(send)
    buffer.add("propose", 0.5, failed=False)
    buffer.add("propose", 0.25, failed=True)
    buffer.add("refine", 0.0, failed=False, passed=True)
    assert arrived.wait(30)
    assert batches == [{"propose": Tally(2, 0.75, 1), "refine": Tally(1, 0.0, 0, passed=1)}]
    arrived.clear()
    buffer.add("propose", 1.0, failed=False)  # the next row starts another timer
    assert arrived.wait(30)
    assert batches[1:] == [{"propose": Tally(1, 1.0, 0)}]


def test_flush_sends_at_once_and_only_once(monkeypatch):
    monkeypatch.setattr(monitor, "_FLUSH_SECONDS", 0.05)
    batches = []
    buffer = TallyBuffer(batches.append)
    buffer.flush()
    assert batches == []
    buffer.add("fetch", 0.1, failed=False)
    buffer.flush()
    buffer.flush()
    time.sleep(0.2)  # the timer finds an empty buffer
    assert batches == [{"fetch": Tally(1, 0.1, 0)}]
