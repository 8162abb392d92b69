"""One driver for an output at a time: a lease in the output that has to be renewed.

``lease.json`` says who writes the output, until when, and how far the job is; its holder renews it
every few seconds. A second driver is refused while it is good. A lease that has run out, or whose
process is known to be dead, is taken over. Stores differ in what they offer for locking, so the
lease asks for nothing but whole-file writes: who has written it waits a moment and reads it back.
Should two drivers overlap all the same (a machine that slept, clocks that differ), the one that
lost finds out at its next renewal and stops; what both have committed is the same, byte for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from salip_ray.errors import LeaseError, SalipError
from salip_ray.output.layout import LEASE
from salip_ray.output.store import Store

RENEW_SECONDS = 10.0
TERM_SECONDS = 90.0
_SETTLE_LOCAL, _SETTLE_REMOTE = 0.1, 1.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")

#: Owners of the leases that this process holds, or is about to.
_OURS: set[str] = set()

#: How far a job is, for people who look at the output: JSON-ready.
Progress = Callable[[], Mapping[str, Any]]


class Lease:
    """A lease that is held: renewed by a thread of its own until it is released.

    Attributes:
        lost: set once another driver has taken the output over.
        progress: asked at each renewal, and written with it.
    """

    def __init__(self, store: Store, mine: Mapping[str, Any], term: float, renew: float) -> None:
        self.lost = threading.Event()
        self.progress: Progress | None = None
        self._on_lost: Callable[[], object] | None = None
        self._telling = threading.Lock()
        self._store, self._mine, self._term = store, dict(mine), term
        self._over = threading.Event()
        self._renewer = threading.Thread(
            target=self._keep, args=(renew,), name="lease", daemon=True
        )
        self._renewer.start()

    @property
    def on_lost(self) -> Callable[[], object] | None:
        """What is called once the lease is lost, and at once where it is lost already.

        A call that fails is made again at the next renewal.
        """
        return self._on_lost

    @on_lost.setter
    def on_lost(self, tell: Callable[[], object] | None) -> None:
        with self._telling:
            self._on_lost = tell
        if self.lost.is_set():
            self._tell()

    def require(self) -> None:
        """Raise LeaseError where another driver has taken the output over."""
        if self.lost.is_set():
            raise LeaseError(
                f"output {self._store} was taken over by another driver while this one was out of "
                "reach; the other goes on"
            )

    def release(self) -> None:
        """Give the output free."""
        self._over.set()
        try:
            self._renewer.join(timeout=60)
            if not self.lost.is_set():
                with contextlib.suppress(SalipError):  # it runs out by itself
                    held = _read(self._store)
                    if held is not None and held.get("owner") == self._mine["owner"]:
                        try:
                            self._store.delete(LEASE)
                        except SalipError:  # a job that may write, but not delete
                            _write(self._store, self._mine, 0)
        finally:
            _OURS.discard(self._mine["owner"])

    def _keep(self, renew: float) -> None:
        while not self._over.wait(renew):
            # A store that fails now may answer the next time; the term covers several renewals.
            with contextlib.suppress(SalipError):
                if self.lost.is_set() or self._is_taken():
                    self.lost.set()
                    self._tell()
                else:
                    self._renew()

    def _is_taken(self) -> bool:
        held = _read(self._store)
        return held is not None and held.get("owner") != self._mine["owner"]

    def _tell(self) -> None:
        with self._telling, contextlib.suppress(Exception):
            if self._on_lost is not None:
                self._on_lost()
                self._on_lost = None

    def _renew(self) -> None:
        if self.progress is not None:
            with contextlib.suppress(Exception):  # a job does not fail because nobody can watch it
                self._mine["progress"] = dict(self.progress())
        _write(self._store, self._mine, self._term)


@contextlib.contextmanager
def held(
    store: Store, *, term: float = TERM_SECONDS, renew: float = RENEW_SECONDS
) -> Iterator[Lease]:
    """Hold the lease of an output.

    Args:
        store: the output.
        term: seconds for which a lease is good after each renewal.
        renew: seconds between renewals.

    Raises:
        LeaseError: another driver holds it.
        OutputError: the output cannot be read or written.
    """
    lease = Lease(store, _acquire(store, term), term, renew)
    try:
        yield lease
    finally:
        lease.release()


def _acquire(store: Store, term: float) -> dict[str, Any]:
    before = _read(store)
    mine = {"owner": uuid.uuid4().hex, **_here(), "started": _stamp(_now())}
    if before is not None and not _is_free(before):
        raise _refusal(store, before)
    _OURS.add(mine["owner"])
    try:
        _write(store, mine, term)
        time.sleep(_SETTLE_LOCAL if store.is_local else _SETTLE_REMOTE)
        after = _read(store)
        if after is not None and after.get("owner") != mine["owner"]:
            raise _refusal(store, after)
    except BaseException:
        _OURS.discard(mine["owner"])
        raise
    return mine


def _is_free(lease: Mapping[str, Any]) -> bool:
    """Whether its term is over, or nobody holds it any more in this process or a dead one."""
    try:
        if datetime.fromisoformat(lease["expires"]) <= _now():
            return True
    except (KeyError, TypeError, ValueError):
        return True  # not a lease that anybody could be renewing
    here = _here()
    # Containers may share a host's name and its boot, and count their processes each for itself.
    if any(lease.get(name) != here[name] for name in ("host", "boot", "pid_namespace")):
        return False
    if lease.get("pid") == here["pid"]:
        return lease.get("owner") not in _OURS
    return _birth(int(lease.get("pid", 0))) != lease.get("born")


def _refusal(store: Store, lease: Mapping[str, Any]) -> LeaseError:
    left = (datetime.fromisoformat(lease["expires"]) - _now()).total_seconds()
    return LeaseError(
        f"output {store} is being written by another driver (host {lease.get('host')}, process "
        f"{lease.get('pid')}, since {lease.get('started')}): wait for it, stop it, or give another "
        f"output. If it is dead already, its lease runs out in {max(0.0, left):.0f} s"
    )


def _read(store: Store) -> dict[str, Any] | None:
    data = store.read(LEASE)
    try:
        found = json.loads(data) if data else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _write(store: Store, lease: Mapping[str, Any], term: float) -> None:
    now = _now()
    dated = {**lease, "renewed": _stamp(now), "expires": _stamp(now + timedelta(seconds=term))}
    store.write(LEASE, json.dumps(dated, indent=2).encode() + b"\n")


def _here() -> dict[str, Any]:
    """This process, told apart from one of the same number after a restart."""
    boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
    pid, namespace = os.getpid(), ""
    with contextlib.suppress(OSError):
        namespace = str(_PID_NAMESPACE.readlink())
    where = {"host": platform.node(), "boot": boot, "pid_namespace": namespace}
    return {**where, "pid": pid, "born": _birth(pid)}


def _birth(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's count; None where there is none.

    Where there is no ``/proc`` nobody is known to be dead, and a lease has to run out.
    """
    if not Path("/proc/self/stat").is_file():
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def _now() -> datetime:
    return datetime.now(UTC)


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
