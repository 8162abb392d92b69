"""Ctrl-C and SIGTERM: finish what is being committed, then stop.

A signal's handler may run anywhere in the main thread, so it does next to nothing itself: the first
signal starts a thread that closes the gate of the commits and waits for those under way; then, or
when a second signal comes, :class:`Stopped` is raised in the main thread.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The job was told to stop.

    Attributes:
        signal: which signal told it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def graceful_stop(drain: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
    """Turn the first signal into ``drain`` and then :class:`Stopped`.

    Off the main thread, where Python takes no signals, nothing is installed.

    Args:
        drain: returns when nothing is being committed any more; called in a thread of its own.
        say: tells a person what is going on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main = threading.get_ident()
    seen: list[int] = []

    def finish(number: int) -> None:
        say(f"{signal.Signals(number).name}: finishing the commits under way; again to stop now")
        with contextlib.suppress(Exception):
            drain()
        signal.pthread_kill(main, number)

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if seen:
            raise Stopped(seen[0])
        seen.append(number)
        threading.Thread(target=finish, args=(number,), name="drain", daemon=True).start()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
