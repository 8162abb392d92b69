"""The output of an export: files under one location, and ``export.json``, the record of the export.

The record is written first, with the labels and options that the export was made from, and again
at the end, with ``complete``. Two exports cannot share a location, and none can be in the output
that it exports. One process at a time writes an export: it holds the lease of the location.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import salip_ray
from salip_ray.errors import OutputError
from salip_ray.output.claim import Record, as_json, claimed
from salip_ray.output.layout import EXPORT
from salip_ray.output.lease import Lease
from salip_ray.output.store import Store


class Destination:
    """Writes an export to local disk or any store that fsspec knows; see :func:`destination_of`.

    Args:
        store: the location.
        record: of the export.
        lease: of the location.
    """

    def __init__(self, store: Store, record: Record, lease: Lease) -> None:
        self._store, self._record, self._lease = store, record, lease
        self._names = store.all_names()
        self.resumed = False

    def __str__(self) -> str:
        return str(self._store)

    def has(self, *names: str) -> bool:
        """Return True if all of these files exist, from this run or an earlier one."""
        return self._names.issuperset(names)

    def read(self, name: str) -> bytes | None:
        """Return a file that this or an earlier run wrote, or None.

        Raises:
            StoreError: it cannot be read.
        """
        return self._store.read(name) if self.has(name) else None

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file in one step.

        Raises:
            StoreError: it cannot be written.
            LeaseError: another process may be writing the export.
        """
        self._lease.require()
        self._store.write(name, data.encode() if isinstance(data, str) else data)
        self._names.add(name)

    def link(self, name: str, target: Path) -> bool:
        """Link a file of this machine into the export; return False if that is not possible.

        Raises:
            LeaseError: another process may be writing the export.
        """
        self._lease.require()
        if not self._store.link(name, target):
            return False
        self._names.add(name)
        return True

    def complete(self, **counts: int) -> None:
        """Record that the export is complete, with its counts.

        Raises:
            StoreError: the record cannot be written.
            LeaseError: another process has taken the export over.
        """
        self._lease.require_owner()
        self.write_record(complete=True, **counts)

    def write_record(self, **progress: Any) -> None:
        """Write the record with these fields."""
        self.write(EXPORT, as_json({**self._record.content(), **progress}))


@contextlib.contextmanager
def destination_of(
    location: str, about: Mapping[str, Any], storage_options: Mapping[str, Any] | None = None
) -> Iterator[Destination]:
    """Claim a location for an export, or resume the export there, and hold its lease.

    Args:
        location: an empty or new location, or one that the same export claimed earlier.
        about: what the export is made from; JSON-ready, and the same each time. ``labels`` in it is
            the URI of the exported output.
        storage_options: fsspec options.

    Raises:
        OutputError: the location holds other files, or is in the exported output; (ResumeError) it
            holds another export; or (LeaseError) another process writes it.
    """
    store = Store(location, storage_options)
    labels = str(about.get("labels", "")).rstrip("/")
    if labels and f"{store}/".startswith(f"{labels}/"):
        raise OutputError(f"{store} is in the output {labels}: give a location outside of it")
    version = {"salip_ray": salip_ray.__version__}
    record = Record("export", EXPORT, about, key=None, before=version, after={"complete": False})
    with claimed(store, record) as claim:
        destination = Destination(store, record, claim.lease)
        if claim.earlier is not None:
            destination.resumed = True
            destination.write_record(complete=False)
        yield destination
