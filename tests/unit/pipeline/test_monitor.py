"""What the monitor hears, and how often."""

from __future__ import annotations

import threading
import time

from salip_ray.pipeline import monitor
from salip_ray.pipeline.monitor import News, Tally


def test_rows_are_told_together(monkeypatch):
    monkeypatch.setattr(monitor, "_TELL_SECONDS", 0.05)
    heard = []
    told = threading.Event()

    def send(tallies):
        heard.append(dict(tallies))
        told.set()

    news = News(send)
    news.add("propose", 0.5, failed=False)
    news.add("propose", 0.25, failed=True)
    news.add("refine", 0.0, failed=False)
    assert told.wait(30)
    assert heard == [{"propose": Tally(2, 0.75, 1), "refine": Tally(1, 0.0, 0)}]
    told.clear()
    news.add("propose", 1.0, failed=False)  # the next row starts the clock anew
    assert told.wait(30)
    assert heard[1:] == [{"propose": Tally(1, 1.0, 0)}]


def test_news_can_be_told_at_once_and_are_told_once(monkeypatch):
    monkeypatch.setattr(monitor, "_TELL_SECONDS", 0.05)
    heard = []
    news = News(heard.append)
    news.tell()
    assert heard == []
    news.add("fetch", 0.1, failed=False)
    news.tell()
    news.tell()
    time.sleep(0.2)  # the timer finds nothing left
    assert heard == [{"fetch": Tally(1, 0.1, 0)}]
