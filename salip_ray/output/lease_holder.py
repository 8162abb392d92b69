"""The content of ``lease.json``: which driver writes an output, until when, and its progress."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from salip_ray.output.layout import LEASE
from salip_ray.output.store import Store

TERM_SECONDS = 90.0  #: how long a lease is good after each renewal
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class LeaseHolder:
    """A driver that holds or held the lease of an output.

    Attributes:
        owner: a random id of the lease.
        host: name of the driver's machine.
        boot: id of the machine's boot, empty if unknown.
        pid_namespace: the namespace that ``pid`` counts in, empty if unknown.
        pid: process number of the driver.
        born: start of the process in the kernel's count, None if unknown.
        started: when the lease was taken (ISO 8601).
        renewed: when it was renewed last.
        expires: when it expires unless it is renewed.
        progress: JSON-ready progress of the job.
    """

    owner: str
    host: str
    boot: str
    pid_namespace: str
    pid: int
    born: str | None
    started: str
    renewed: str = ""
    expires: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes | None) -> LeaseHolder | None:
        """Return the holder in the bytes of a lease, or None if they are not a lease.

        Only the times must be valid: other fields that are missing or malformed become unknown.
        """
        try:
            content = json.loads(data or b"null")
            _moment(content["expires"])
            _moment(content["renewed"])
        except (ValueError, KeyError, TypeError):
            return None
        pid, born, progress = content.get("pid"), content.get("born"), content.get("progress")
        return cls(
            **{name: str(content.get(name, "unknown")) for name in _TEXTS},
            pid=pid if isinstance(pid, int) else 0,
            born=born if isinstance(born, str) else None,
            progress=progress if isinstance(progress, Mapping) else {},
        )

    def renewed_at(self, now: datetime, term: float, progress: Mapping[str, Any]) -> LeaseHolder:
        """Return the holder after a renewal."""
        expires = now + timedelta(seconds=term)
        return replace(self, renewed=_text(now), expires=_text(expires), progress=progress)

    def to_bytes(self) -> bytes:
        """Return the content of ``lease.json``."""
        content = asdict(self)
        if not self.progress:
            del content["progress"]
        return json.dumps(content, indent=2).encode() + b"\n"

    def seconds_left(self, now: datetime) -> float:
        """Return the seconds until the lease expires, at most its term after the last renewal."""
        latest = _moment(self.renewed) + timedelta(seconds=TERM_SECONDS)
        return (min(_moment(self.expires), latest) - now).total_seconds()

    def is_current(self, now: datetime) -> bool:
        """Return True if the lease has not expired."""
        return self.seconds_left(now) > 0

    def is_same_machine(self, other: LeaseHolder) -> bool:
        """Return True if the process numbers of both drivers can be compared."""
        # Containers may share the name of a host and its boot, and count processes separately.
        return (self.host, self.boot, self.pid_namespace) == (
            other.host,
            other.boot,
            other.pid_namespace,
        )

    def is_process_alive(self) -> bool:
        """Return True unless this machine knows that the driver's process has ended.

        Call it only if the driver is on this machine.
        """
        return _birth(self.pid) == self.born


_TEXTS = ("owner", "host", "boot", "pid_namespace", "started", "renewed", "expires")


def read_lease(store: Store) -> LeaseHolder | None:
    """Return the holder of an output's lease, or None if there is no valid lease.

    Raises:
        StoreError: the lease cannot be read.
    """
    return LeaseHolder.parse(store.read(LEASE))


def this_process(owner: str, now: datetime) -> LeaseHolder:
    """Return this process as the holder of a new lease."""
    boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
    pid, namespace = os.getpid(), ""
    with contextlib.suppress(OSError):
        namespace = str(_PID_NAMESPACE.readlink())
    return LeaseHolder(owner, platform.node(), boot, namespace, pid, _birth(pid), _text(now))


def _birth(pid: int) -> str | None:
    """Return when a process of this machine started, in the kernel's count; None if it has ended.

    Without ``/proc`` it is None for every process, so that a lease has to expire.
    """
    if not Path("/proc/self/stat").is_file():
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
