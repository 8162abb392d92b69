"""Take the lease of an output, unless another driver holds it.

A lease is taken with one conditional write (S3 ``If-None-Match`` or ``If-Match``, a hard link on
local disk). If the store does not support that, the driver writes the lease, waits a moment and
reads it back.
"""

from __future__ import annotations

import time
import uuid

from salip_ray.errors import LeaseError
from salip_ray.output import clock
from salip_ray.output.layout import LEASE
from salip_ray.output.lease_holder import TERM_SECONDS, LeaseHolder, read_lease, this_process
from salip_ray.output.store import Store, UnconditionalStoreError
from salip_ray.output.store_clients import Version

_SETTLE_LOCAL, _SETTLE_REMOTE = 0.1, 1.0

#: Owners of the leases that this process holds or is about to hold.
_OWNED: set[str] = set()


def acquire(store: Store, term: float) -> LeaseHolder:
    """Write a lease of this process, and return it.

    Raises:
        LeaseError: another driver holds the lease.
        StoreError: the output cannot be read or written.
    """
    data, version = store.read_with_version(LEASE)
    now = clock.now()
    mine = this_process(uuid.uuid4().hex, now).renewed_at(now, term, {})
    holder = LeaseHolder.parse(data)
    if holder is not None and not _is_free(holder, mine):
        raise _refusal(store, holder)
    _OWNED.add(mine.owner)
    try:
        if _write_conditionally(store, mine.to_bytes(), version) is None:
            store.write(LEASE, mine.to_bytes())
            time.sleep(_SETTLE_LOCAL if store.is_local else _SETTLE_REMOTE)
        holder = read_lease(store)
        if holder is None or holder.owner != mine.owner:
            raise _refusal(store, holder)
    except BaseException:
        _OWNED.discard(mine.owner)
        raise
    return mine


def forget(owner: str) -> None:
    """Note that this process no longer holds a lease."""
    _OWNED.discard(owner)


def _write_conditionally(store: Store, data: bytes, version: Version | None) -> bool | None:
    """Write the lease if it still has a version, or is still absent (None).

    Returns:
        True if it was written, False if another driver was first, None if the store does not
        support conditions. A store that ignores conditions has written the lease.
    """

    def write() -> bool:
        if version is None:
            return store.create(LEASE, data)
        return store.replace(LEASE, data, version)

    try:
        if not write():
            return False
        # A server that ignores conditions repeats the write; one that knows them must refuse.
        return None if write() else True
    except UnconditionalStoreError:
        return None


def _is_free(holder: LeaseHolder, mine: LeaseHolder) -> bool:
    """Return True if the lease has expired, or its process has ended or does not hold it."""
    if not holder.is_current(clock.now()):
        return True
    if not holder.is_same_machine(mine):
        return False
    if holder.pid == mine.pid:
        return holder.owner not in _OWNED
    return not holder.is_process_alive()


def _refusal(store: Store, holder: LeaseHolder | None) -> LeaseError:
    if holder is None:
        return LeaseError(f"output {store} is used by another driver: try again in a minute")
    left = holder.seconds_left(clock.now())
    if left <= TERM_SECONDS:
        ends = f"If that driver has died, its lease expires in {max(0.0, left):.0f} s"
    else:
        ends = (
            f"The lease was renewed {left - TERM_SECONDS:.0f} s in the future, so a clock is "
            f"wrong: if no driver is running, delete {store.path_of(LEASE)}"
        )
    return LeaseError(
        f"output {store} is being written by another driver (host {holder.host}, process "
        f"{holder.pid}, since {holder.started}): wait for it, stop it, or give another output. "
        f"{ends}"
    )
