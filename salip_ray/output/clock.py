"""The clocks of this machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the time of the wall clock, in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return the seconds of the monotonic clock."""
    return time.monotonic()


class Moment:
    """A moment on the wall clock and on the monotonic clock of this machine.

    A stopped process falls behind on both; a suspended machine only on the wall clock.
    """

    def __init__(self) -> None:
        self._wall, self._monotonic = now(), monotonic()

    def elapsed(self) -> float:
        """Return the seconds since then, by the clock that shows more."""
        return max((now() - self._wall).total_seconds(), monotonic() - self._monotonic)
