"""The output of an export: files under one location, and ``export.json``, the record of the export.

The record is written first, with the labels and options that the export was made from, and again
at the end, with ``complete``. Two exports cannot share a location, and none can be in the output
that it exports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import salip_ray
from salip_ray.errors import OutputError
from salip_ray.output.claim import Record, as_json, claim_or_resume
from salip_ray.output.layout import EXPORT
from salip_ray.output.store import Store


class Destination:
    """Writes an export to local disk or any store that fsspec knows.

    Args:
        location: an empty or new location, or one that the same export claimed earlier.
        about: what the export is made from; JSON-ready, and the same each time. ``labels`` in it is
            the URI of the exported output.
        storage_options: fsspec options.

    Raises:
        OutputError: the location holds other files, or is in the exported output.
        ResumeError: the location holds another export.
    """

    def __init__(
        self,
        location: str,
        about: Mapping[str, Any],
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = Store(location, storage_options)
        labels = str(about.get("labels", "")).rstrip("/")
        if labels and f"{self}/".startswith(f"{labels}/"):
            raise OutputError(f"{self} is in the output {labels}: give a location outside of it")
        version = {"salip_ray": salip_ray.__version__}
        self._record = Record(
            "export", EXPORT, about, key=None, before=version, after={"complete": False}
        )
        resumed = claim_or_resume(self._store, self._record) is not None
        self._names = self._store.all_names()
        if resumed:
            self._write_record(complete=False)

    def __str__(self) -> str:
        return str(self._store)

    def has(self, *names: str) -> bool:
        """Return True if all of these files exist, from this run or an earlier one."""
        return self._names.issuperset(names)

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file in one step.

        Raises:
            StoreError: it cannot be written.
        """
        self._store.write(name, data.encode() if isinstance(data, str) else data)
        self._names.add(name)

    def complete(self, **counts: int) -> None:
        """Record that the export is complete, with its counts.

        Raises:
            StoreError: the record cannot be written.
        """
        self._write_record(complete=True, **counts)

    def _write_record(self, **progress: Any) -> None:
        self.write(EXPORT, as_json({**self._record.content(), **progress}))
