"""One driver at a time for an output: a lease in the output that must be renewed.

``lease.json`` names the driver that writes the output. Its holder renews it every few seconds. A
second driver is refused until the lease expires, or its process is known to be dead
(:mod:`salip_ray.output.lease_acquire`).

A driver may be paused while its lease expires (a stopped process, a suspended machine). Therefore a
lease is lost if it was not renewed within its term by either clock, is absent, or has another
owner. The owner is checked again before every commit and before the summary.

The lease is no fence: a driver that is paused between this check and its write may write late. What
it writes then has the same bytes (``docs/reliability.md``, "Why exactly once", has the exceptions).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from salip_ray.errors import LeaseError, SalipError
from salip_ray.output import clock
from salip_ray.output.clock import Moment
from salip_ray.output.layout import LEASE
from salip_ray.output.lease_acquire import acquire, forget
from salip_ray.output.lease_holder import TERM_SECONDS, LeaseHolder, read_lease
from salip_ray.output.store import Store

RENEW_SECONDS = 10.0
_CLOCK_ALLOWANCE = 90.0  # seconds by which the clocks of two nodes of a job may differ
_RESUME = "Run the same command again to resume."

#: Returns the progress of a job as JSON-ready data, for people who look at the output.
Progress = Callable[[], Mapping[str, Any]]


class Lease:
    """A lease that this process holds; a thread renews it until it is released.

    Attributes:
        lost: set once the lease is lost.
        progress: called at each renewal; its result is written with the lease.
    """

    def __init__(
        self, store: Store, holder: LeaseHolder, *, term: float, interval: float, since: Moment
    ) -> None:
        self.lost = threading.Event()
        self.progress: Progress | None = None
        self._on_lost: Callable[[], object] | None = None
        self._reason = ""
        self._notifying = threading.Lock()
        self._store, self._holder, self._term, self._renewed = store, holder, term, since
        self._released = threading.Event()
        self._renewer = threading.Thread(
            target=self._renew_until_released, args=(interval,), name="lease", daemon=True
        )
        self._renewer.start()

    @property
    def owner(self) -> str:
        """The id of this lease, for :func:`require_owner` in another process."""
        return self._holder.owner

    @property
    def on_lost(self) -> Callable[[], object] | None:
        """Function to call once when the lease is lost, or at once if it is lost already.

        A call that fails is repeated at the next renewal.
        """
        return self._on_lost

    @on_lost.setter
    def on_lost(self, notify: Callable[[], object] | None) -> None:
        with self._notifying:
            self._on_lost = notify
        if self.lost.is_set():
            self._notify()

    def require(self) -> None:
        """Check the lease by the clocks of this machine, without asking the store.

        Raises:
            LeaseError: it is lost.
        """
        if not self.lost.is_set():
            seconds = self._renewed.elapsed()
            if seconds > self._term:
                self._lose(
                    f"the lease on output {self._store} was lost: it was not renewed for "
                    f"{seconds:.0f} s, but expires after {self._term:.0f} s. {_RESUME}"
                )
        if self.lost.is_set():
            raise LeaseError(self._reason)

    def require_owner(self) -> None:
        """Check the lease by the clocks and in the store; call it before writing.

        Raises:
            LeaseError: it is lost.
            StoreError: the store does not answer.
        """
        self.require()
        try:
            require_owner(self._store, self.owner)
        except LeaseError as error:
            self._lose(str(error))
            raise

    def renew(self) -> None:
        """Renew the lease once, or find out that it is lost.

        Raises:
            StoreError: the store does not answer.
        """
        if self.lost.is_set():
            self._notify()
            return
        progress = self._current_progress()
        checked = Moment()
        with contextlib.suppress(LeaseError):
            self.require_owner()
            if checked.elapsed() > self._term / 2:
                return  # paused since the check: another driver may hold the lease by now
            self._holder = self._holder.renewed_at(clock.now(), self._term, progress)
            self._store.write(LEASE, self._holder.to_bytes())
            self._renewed = checked

    def release(self) -> None:
        """Release the output for other drivers."""
        self._released.set()
        try:
            self._renewer.join(timeout=60)
            if not self.lost.is_set():
                with contextlib.suppress(SalipError):  # the lease expires by itself
                    self._remove()
        finally:
            forget(self.owner)

    def _current_progress(self) -> Mapping[str, Any]:
        with contextlib.suppress(Exception):  # no job fails because of its progress
            if self.progress is not None:
                return dict(self.progress())
        return self._holder.progress

    def _remove(self) -> None:
        holder = read_lease(self._store)
        if holder is not None and holder.owner == self.owner:
            try:
                self._store.delete(LEASE)
            except SalipError:  # some accounts may write but not delete
                expired = self._holder.renewed_at(clock.now(), 0, self._holder.progress)
                self._store.write(LEASE, expired.to_bytes())

    def _renew_until_released(self, interval: float) -> None:
        while not self._released.wait(interval):
            # The term covers several renewals, so that a store may fail for a while.
            with contextlib.suppress(SalipError):
                self.renew()

    def _lose(self, reason: str) -> None:
        if not self.lost.is_set():
            self._reason = reason
            self.lost.set()
        self._notify()

    def _notify(self) -> None:
        with self._notifying, contextlib.suppress(Exception):
            if self._on_lost is not None:
                self._on_lost()
                self._on_lost = None


def require_owner(store: Store, owner: str) -> None:
    """Check that a driver still holds the lease of an output; call it before every commit.

    Args:
        store: the output.
        owner: :attr:`Lease.owner` of the driver.

    Raises:
        LeaseError: the lease is absent, has another owner, or has expired.
        StoreError: the lease cannot be read.
    """
    holder = read_lease(store)
    if holder is None:
        raise LeaseError(
            f"the lease on output {store} was lost: {LEASE} is missing or damaged. {_RESUME}"
        )
    if holder.owner != owner:
        raise LeaseError(
            f"output {store} was taken over by another driver (host {holder.host}, process "
            f"{holder.pid}) after this one did not renew its lease; the other driver continues"
        )
    if holder.seconds_left(clock.now()) < -_CLOCK_ALLOWANCE:
        raise LeaseError(
            f"the lease on output {store} was lost: it was renewed last at {holder.renewed}. "
            f"{_RESUME}"
        )


@contextlib.contextmanager
def held(
    store: Store, *, term: float = TERM_SECONDS, interval: float = RENEW_SECONDS
) -> Iterator[Lease]:
    """Hold the lease of an output, and delete the temporary files of killed writers.

    Args:
        store: the output; a foreign location must have been refused before.
        term: seconds until the lease expires after each renewal, at most ``TERM_SECONDS``.
        interval: seconds between renewals.

    Raises:
        LeaseError: another driver holds it.
        StoreError: the output cannot be read or written.
    """
    since = Moment()
    lease = Lease(store, acquire(store, term), term=term, interval=interval, since=since)
    try:
        store.sweep()
        yield lease
    finally:
        lease.release()
