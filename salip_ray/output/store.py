"""The output location: whole files that appear at once, or not at all.

Local: a temporary file beside the target, then ``os.replace``. Remote: the bytes are made in memory
and sent as one object, which S3, GCS and Azure make visible only when it is complete. What may pass
(time-outs, 5xx, cut connections) is tried again, with growing pauses, before it is an error.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from salip_ray.errors import OutputError
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri
from salip_ray.sources.stores import persistently, read_existing, said

_TEMPORARY = ".tmp"
_ATTEMPTS = 6
T = TypeVar("T")


class Store:
    """Reads and writes small whole files below one location; cheap to pickle.

    Args:
        location: a folder or prefix.
        storage_options: fsspec's.
        elsewhere: files that are stored outside of the location, by their name in it, with the
            same options.

    Raises:
        OutputError: what is kept elsewhere is in the location, or has no name.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        storage_options: Mapping[str, Any] | None = None,
        *,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.location = normalise(location).rstrip("/") or "/"
        self._options = dict(storage_options or {})
        self._elsewhere = dict(elsewhere or {})
        for place in self._elsewhere.values():
            folder, _, name = normalise(place).rpartition("/")
            if not name or f"{folder}/".startswith(f"{self.location.rstrip('/')}/"):
                raise OutputError(f"{public_uri(place)} must be a file outside of {self}")

    def __repr__(self) -> str:
        return f"Store({public_uri(self.location)!r})"

    def __str__(self) -> str:
        return public_uri(self.location)

    @property
    def is_local(self) -> bool:
        """Whether the location is a path of this machine's (or a mounted) disk."""
        return not is_remote(self.location)

    def is_elsewhere(self, name: str) -> bool:
        """Whether a file is kept elsewhere."""
        return name in self._elsewhere

    def where(self, name: str) -> str:
        """Where a file is, for people to read."""
        return public_uri(self._elsewhere[name]) if name in self._elsewhere else f"{self}/{name}"

    def for_ray(self) -> tuple[str, Any]:
        """The location as Ray Train and Ray Tune take it: a path, and its pyarrow filesystem.

        The latter is None for a local folder.
        """
        if self.is_local:
            return self.location, None
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        fs, path = filesystem(self.location, self._options)
        return path, PyFileSystem(FSSpecHandler(fs))

    def _place(self, name: str) -> tuple[Store, str]:
        """The store of a file that is kept elsewhere, and its name there."""
        folder, _, there = normalise(self._elsewhere[name]).rpartition("/")
        return Store(folder, self._options), there

    def write(self, name: str, data: bytes) -> None:
        """Put ``data`` at ``name``, replacing what was there, in one step.

        Raises:
            OutputError: the location cannot be written.
        """
        if name in self._elsewhere:
            place, there = self._place(name)
            place.write(there, data)
            return
        with self._explaining("write", name):
            if self.is_local:
                _replace(Path(self.location, name), data)
            else:
                fs, root = self._open()
                _persistently(lambda: fs.pipe_file(join(root, name), data))

    def read(self, name: str) -> bytes | None:
        """The bytes at ``name``, or None where there is nothing."""
        if name in self._elsewhere:
            place, there = self._place(name)
            return place.read(there)
        fs, root = self._open()
        with self._explaining("read", name):
            try:
                return bytes(_persistently(lambda: fs.cat_file(join(root, name))))
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        """Delete a file, where it is there."""
        fs, root = self._open()
        with self._explaining("delete", name), contextlib.suppress(FileNotFoundError):
            _persistently(lambda: fs.rm_file(join(root, name)))

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of several files, fetched together; what does not exist is left out."""
        if not names:
            return {}
        fs, root = self._open()
        paths = {fs._strip_protocol(join(root, name)): name for name in names}
        found: dict[str, bytes] = {}
        for path, data in read_existing(fs, paths, attempts=_ATTEMPTS).items():
            with self._explaining("read", paths[path]):
                if isinstance(data, Exception):
                    raise data
                found[paths[path]] = data
        return found

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the entries of a folder; none where it does not exist.

        Left-overs of a write that was killed are not entries.
        """
        fs, root = self._open()
        fs.invalidate_cache()
        where = join(root, folder) if folder else root
        with self._explaining("read", folder):
            try:
                found = _persistently(lambda: fs.ls(where, detail=False))
            except FileNotFoundError:
                return []
        names = (path.rstrip("/").rpartition("/")[2] for path in found if path.rstrip("/") != where)
        return sorted(name for name in names if not _is_leftover(name))

    def sweep(self, folder: str) -> None:
        """Delete what killed writes left in a local folder."""
        if self.is_local and Path(self.location, folder).is_dir():
            for path in Path(self.location, folder).iterdir():
                if _is_leftover(path.name):
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explaining(self, verb: str, name: str) -> Iterator[None]:
        """Say what of this output could not be done, whatever the store's client raises."""
        try:
            yield
        except OutputError:
            raise
        except Exception as error:  # noqa: BLE001
            where = join(str(self), name) if name else str(self)
            problem = said(error, self.location)
            raise OutputError(f"cannot {verb} {where}: {problem}") from None

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


def _persistently(action: Callable[[], T]) -> T:
    return persistently(action, attempts=_ATTEMPTS)


def _is_leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(_TEMPORARY)
