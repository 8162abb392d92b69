"""Ctrl-C and SIGTERM: finish what is being committed, then stop.

A signal's handler may run anywhere in the main thread, so it does next to nothing itself: the first
signal starts a thread that closes the gate of the commits and waits for those under way; then, or
when a second signal comes, :class:`Stopped` is raised in the main thread. A job that comes to its
end meanwhile, well or not, is left alone: nothing may be raised where it is being wound up.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The job was told to stop.

    Attributes:
        signal: which signal told it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


class GracefulStop:
    """Turns the first signal inside its context into ``drain`` and then :class:`Stopped`.

    The context is not left before ``drain`` has returned, but for a second signal. Off the main
    thread, where Python takes no signals, nothing is installed.

    Args:
        drain: returns when nothing is being committed any more; called in a thread of its own.
        say: tells a person what is going on.

    Attributes:
        signal: the first that came, None so far; it stays when the context is left.
    """

    def __init__(self, drain: Callable[[], None], report: Callable[[str], None]) -> None:
        self.signal: signal.Signals | None = None
        self._drain, self._say = drain, report
        self._lock = threading.Lock()
        self._active = False
        self._main = 0
        self._drainer: threading.Thread | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._active, self._main = True, threading.get_ident()
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._lock:
                self._active = False
            if self._drainer is not None and kind is not Stopped:
                self._drainer.join()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.signal is not None or not self._active:
            raise Stopped(self.signal or number)
        self.signal = signal.Signals(number)
        self._drainer = threading.Thread(target=self._finish, name="drain", daemon=True)
        self._drainer.start()

    def _finish(self) -> None:
        assert self.signal is not None, "a signal has started this thread"
        with contextlib.suppress(Exception):
            self._say(f"{self.signal.name}: finishing the commits under way; again to stop now")
            self._drain()
        with self._lock:  # so that the handler is there until the signal has come
            if self._active:
                signal.pthread_kill(self._main, self.signal)
