"""The output location: whole files that appear at once, or not at all.

Local: a temporary file beside the target, then ``os.replace``. Remote: the bytes are made in memory
and sent as one object, which S3, GCS and Azure make visible only when it is complete.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salip_ray.errors import OutputError
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri

_TEMPORARY = ".tmp"


class Store:
    """Reads and writes small whole files below one location; cheap to pickle."""

    def __init__(
        self, location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self.location = normalise(location).rstrip("/") or "/"
        self._options = dict(storage_options or {})

    def __repr__(self) -> str:
        return f"Store({public_uri(self.location)!r})"

    def __str__(self) -> str:
        return public_uri(self.location)

    @property
    def is_local(self) -> bool:
        """Whether the location is a path of this machine's (or a mounted) disk."""
        return not is_remote(self.location)

    def write(self, name: str, data: bytes) -> None:
        """Put ``data`` at ``name``, replacing what was there, in one step.

        Raises:
            OutputError: the location cannot be written.
        """
        try:
            if self.is_local:
                _replace(Path(self.location, name), data)
            else:
                fs, root = self._open()
                fs.pipe_file(join(root, name), data)
        except (OSError, ValueError) as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write {join(str(self), name)}: {_said(error)}") from None

    def read(self, name: str) -> bytes | None:
        """The bytes at ``name``, or None where there is nothing."""
        fs, root = self._open()
        try:
            return bytes(fs.cat_file(join(root, name)))
        except FileNotFoundError:
            return None

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of several files, fetched together; what does not exist is left out."""
        if not names:
            return {}
        fs, root = self._open()
        paths = {fs._strip_protocol(join(root, name)): name for name in names}
        found = fs.cat(sorted(paths), on_error="omit")
        return {paths[path]: data for path, data in found.items()}

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the entries of a folder; none where it does not exist.

        Left-overs of a write that was killed are not entries.
        """
        fs, root = self._open()
        fs.invalidate_cache()
        where = join(root, folder) if folder else root
        try:
            found = fs.ls(where, detail=False)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read {join(str(self), folder)}: {_said(error)}") from None
        names = (path.rstrip("/").rpartition("/")[2] for path in found if path.rstrip("/") != where)
        return sorted(name for name in names if not _is_leftover(name))

    def sweep(self, folder: str) -> None:
        """Delete what killed writes left in a local folder."""
        if self.is_local and Path(self.location, folder).is_dir():
            for path in Path(self.location, folder).iterdir():
                if _is_leftover(path.name):
                    path.unlink(missing_ok=True)

    def _open(self) -> tuple[Any, str]:
        fs, path = filesystem(self.location, self._options)
        return fs, path.rstrip("/") or "/"


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(_TEMPORARY)


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
