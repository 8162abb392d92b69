"""Where an export goes: whole files below one location, and ``export.json``, which says what it is.

``export.json`` is written first, with what the export is made of, and last, with ``complete``. An
export that finds another one's stops: two exports must not be mixed in one folder. None is written
into the output that it is made of, whose shards and labels are the job's alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import salip_ray
from salip_ray.errors import OutputError
from salip_ray.output.writing import write_whole
from salip_ray.sources.locations import filesystem, join, normalise, public_uri

RECORD = "export.json"


class Destination:
    """Writes an export, local or to any store that fsspec knows.

    Args:
        location: an empty or new place, or one that this very export began.
        about: what the export is made of; JSON-ready, and the same each time. ``labels`` in it is
            the URI of the output.
        storage_options: fsspec options.

    Raises:
        OutputError: something else is there, or it is in the output.
    """

    def __init__(
        self,
        location: str,
        about: Mapping[str, Any],
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.location = normalise(location).rstrip("/")
        self._fs, self._root = filesystem(self.location, storage_options)
        self._about = {"salip_ray": salip_ray.__version__, **about}
        labels = str(about.get("labels", "")).rstrip("/")
        if labels and f"{self}/".startswith(f"{labels}/"):
            raise OutputError(f"{self} is in the output {labels}: export to another place")
        self._there = self._listed()
        self._require_ours()
        self._write_record(complete=False)

    def __str__(self) -> str:
        return public_uri(self.location)

    def has(self, *names: str) -> bool:
        """Whether all of these files are there from an earlier run of this export."""
        return self._there.issuperset(names)

    def write(self, name: str, data: bytes | str) -> None:
        """Put a file there in one step: it is whole or it is not there.

        Raises:
            OutputError: it cannot be written.
        """
        content = data.encode() if isinstance(data, str) else data
        try:
            write_whole(self._fs, join(self._root, name), content)
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise OutputError(f"cannot write {join(str(self), name)}: {said}") from None
        self._there.add(name)

    def complete(self, **counts: int) -> None:
        """Note that all is there, and how much it is."""
        self._write_record(complete=True, **counts)

    def _write_record(self, **progress: Any) -> None:
        self.write(RECORD, json.dumps({**self._about, **progress}, indent=1) + "\n")

    def _listed(self) -> set[str]:
        self._fs.invalidate_cache()
        root = self._root.rstrip("/")
        try:
            found = self._fs.find(root)
        except FileNotFoundError:
            return set()
        return {path[len(root) :].lstrip("/") for path in found}

    def _require_ours(self) -> None:
        if not self._there:
            return
        if RECORD not in self._there:
            raise OutputError(f"{self} is not empty and holds no export: give a new location")
        record = json.loads(self._fs.cat_file(join(self._root, RECORD)))
        for name, value in json.loads(json.dumps(self._about)).items():
            if name != "salip_ray" and record.get(name) != value:
                raise OutputError(
                    f"{self} holds an export with {name} = {record.get(name)!r}, "
                    f"but this one has {value!r}: give a new location"
                )
