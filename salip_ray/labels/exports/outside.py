"""Where an export is written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from salip_ray.errors import OutputError
from salip_ray.labels.reading import Labels
from salip_ray.sources.locations import filesystem, join, normalise, public_uri

EXPORT = "export.json"


class Destination:
    """A location outside of the output whose labels are exported.

    Raises:
        OutputError: it is the output itself, or in it.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        labels: Labels,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        where = normalise(location).rstrip("/")
        self.uri = public_uri(where)
        if f"{self.uri}/".startswith(f"{labels.uri.rstrip('/')}/"):
            raise OutputError(f"{self.uri} is in the output {labels.uri}: export to another place")
        self._fs, self._root = filesystem(where, storage_options)

    def write(self, name: str, data: bytes) -> None:
        """Put ``data`` at ``name``.

        Raises:
            OutputError: it cannot be written.
        """
        path = join(self._root, name)
        try:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data)
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise OutputError(f"cannot write {join(self.uri, name)}: {said}") from None

    def record(self, kind: str, labels: Labels, settings: Mapping[str, Any]) -> None:
        """Write ``export.json``: what was exported, how, and the run it comes from."""
        run = dict(labels.run)
        about = {"format": kind, "settings": dict(settings), "run": run}
        self.write(EXPORT, json.dumps(about, indent=2, ensure_ascii=False).encode() + b"\n")
