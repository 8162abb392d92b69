"""The commit gate: a job that must stop finishes the commits in progress and begins no other.

A driver that is told to stop closes the gate and waits until no shard is being committed. Without
the gate every commit would still be atomic: the gate only saves work that is nearly done.

On a signal: the handler may run anywhere in the main thread, so it only starts a thread that closes
the gate and waits. Then, or at a second signal, :class:`Stopped` is raised in the main thread. A
job that ends in the meantime is not interrupted while it cleans up.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import ray
from ray.exceptions import RayError

from salip_ray.pipeline.monitoring.telemetry import log_event

DRAIN_SECONDS = 120.0  #: the longest wait for commits in progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppingError(RuntimeError):
    """The commit gate is closed: no further shard is committed."""


class Stopped(BaseException):
    """The job was told to stop.

    Attributes:
        signal: the signal that told it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


class GateState:
    """The state of the gate, in the actor of the job."""

    def __init__(self) -> None:
        self._closed = False
        self._committing: set[int] = set()

    def begin_commit(self, shard: int) -> bool:
        """Return True if the commit may begin, False if the gate is closed."""
        if not self._closed:
            self._committing.add(shard)
        return not self._closed

    def end_commit(self, shard: int, committed: bool) -> None:  # noqa: ARG002
        """Note that a commit has ended, with success or not."""
        self._committing.discard(shard)

    def close(self) -> None:
        """Let no further commit begin."""
        self._closed = True

    def committing(self) -> set[int]:
        """Return the shards that are being committed."""
        return self._committing


class CommitGate:
    """Access to the gate from the driver and from the tasks that commit; cheap to pickle.

    Args:
        actor: the actor of the job, whose class extends :class:`GateState`; None is always open.
        run: the id of the run in log lines.
    """

    def __init__(self, actor: Any = None, run: str = "") -> None:
        self._actor = actor
        self._run = run

    def begin(self, shard: int) -> None:
        """Begin the commit of a shard.

        Raises:
            StoppingError: the gate is closed. It is raised when no other commit is in progress: Ray
                Data cancels all other tasks at the first error.
        """
        if self._actor is None:
            return
        try:
            is_open = ray.get(self._actor.begin_commit.remote(shard))
        except RayError:
            return  # without the actor nobody waits for this commit
        if not is_open:
            self.wait_for_commits()
            raise StoppingError(f"shard {shard} is left to the next run")

    def end(self, shard: int, *, committed: bool) -> None:
        """End the commit of a shard, without waiting for the actor."""
        event = "shard_committed" if committed else "shard_not_committed"
        log_event(event, run=self._run, shard=shard)
        if self._actor is not None:
            self._actor.end_commit.remote(shard, committed)

    def close(self) -> None:
        """Let no further commit begin."""
        ray.get(self._actor.close.remote(), timeout=10)

    def wait_for_commits(self) -> None:
        """Wait until no shard is being committed, or the actor is gone."""
        deadline = time.monotonic() + DRAIN_SECONDS
        with contextlib.suppress(RayError):  # a commit that is cut off is made again
            while (
                ray.get(self._actor.committing.remote(), timeout=5) and time.monotonic() < deadline
            ):
                time.sleep(0.1)

    def drain(self) -> None:
        """Close the gate and wait until no shard is being committed."""
        self.close()
        self.wait_for_commits()


class GracefulStop:
    """Turn the first signal in its context into a call of ``drain``, then into :class:`Stopped`.

    The context is left after ``drain`` has returned, or at a second signal. Outside of the main
    thread, where Python accepts no signal handlers, nothing is installed.

    Args:
        drain: return when no shard is being committed; called in another thread.
        report: show a line to the user.

    Attributes:
        signal: the first signal that arrived, or None.
        reason: why the job stops, in words; None if only the signal says it.
    """

    def __init__(self, drain: Callable[[], None], report: Callable[[str], None]) -> None:
        self.signal: signal.Signals | None = None
        self.reason: str | None = None
        self._drain, self._report = drain, report
        self._lock = threading.Lock()
        self._active = False
        self._main = 0
        self._drainer: threading.Thread | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._active, self._main = True, threading.get_ident()
            self._handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._lock:
                self._active = False
            if self._drainer is not None and kind is not Stopped:
                self._drainer.join()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def request(self, reason: str) -> None:
        """Stop the job as SIGTERM does; call it from another thread."""
        with self._lock:
            if self._active and self.signal is None:
                self.reason = reason
                signal.pthread_kill(self._main, signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.signal is not None or not self._active:
            raise Stopped(self.signal or number)
        self.signal = signal.Signals(number)
        self._drainer = threading.Thread(target=self._finish, name="drain", daemon=True)
        self._drainer.start()

    def _finish(self) -> None:
        assert self.signal is not None, "a signal has started this thread"
        with contextlib.suppress(Exception):
            cause = "ending the job" if self.reason else self.signal.name
            self._report(
                f"{cause}: finishing the commits in progress; send the signal again to stop at once"
            )
            self._drain()
        with self._lock:  # the handler stays installed until the signal has arrived
            if self._active:
                signal.pthread_kill(self._main, self.signal)
