"""Members of zip and tar archives as a read-only fsspec filesystem.

fsspec's own filesystems guess a tar's compression from its name, rename members and read the whole
index again for each use. This one looks at the bytes, takes names as they are stored, and is opened
once per process and version of the archive.
"""

from __future__ import annotations

import functools
import posixpath
import stat
import tarfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, Self

from fsspec.archive import AbstractArchiveFileSystem

_OPEN_ARCHIVES = 8  # each holds an open file and the index of its members
_MOST_LINKS = 40  # as Linux follows
_UNIX = 3  # ZipInfo.create_system


class ArchiveFileSystem(AbstractArchiveFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The members of one archive.

    Paths are the members' names as stored, such as ``./a.png`` or ``/a.png``. Of members that share
    a name, the last counts, as when the archive is unpacked.

    Args:
        file: the archive, seekable.
        scheme: ``zip`` or ``tar``; a tar may be compressed with gzip, bzip2 or xz.
        version: what tells this content of the archive from another one.

    Raises:
        tarfile.TarError, zipfile.BadZipFile: the file is not an archive.
    """

    root_marker = ""
    protocol = ("zip", "tar")
    cachable = False

    def __init__(self, file: IO[bytes], scheme: str, version: str | None = None) -> None:
        super().__init__()
        self.fo = file
        self.version = version
        self._lock = threading.RLock()
        self._members: dict[str, tuple[int, Callable[[], IO[bytes]]]] = {}
        self.dir_cache: dict[str, dict[str, Any]] = {}
        if scheme == "zip":
            self._index_zip(zipfile.ZipFile(file))
        else:
            self._index_tar(tarfile.open(fileobj=file, mode="r:*"))  # noqa: SIM115  (stays open)
        for folder in self._all_dirnames(self.dir_cache):
            self.dir_cache.setdefault(folder, {"name": folder, "size": 0, "type": "directory"})

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        for scheme in cls.protocol:
            path = path.removeprefix(f"{scheme}://")
        return path

    def offset(self, path: str) -> int:
        """Return where a member begins: reading in this order never goes back."""
        return self._members[path][0] if path in self._members else 0

    def members(self) -> list[dict[str, Any]]:
        """Return name, size and type of all members that are regular files."""
        return [self.dir_cache[name] for name in self._members]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size in bytes and type of a member or a folder."""
        path = self._strip_protocol(path)
        if not path.strip("/"):
            return {"name": "", "size": 0, "type": "directory"}
        for spelling in (path, path.rstrip("/")):
            if spelling in self.dir_cache:
                return self.dir_cache[spelling]
        raise FileNotFoundError(path)

    def find(self, path: str, detail: bool = False, **_: Any) -> Any:
        """Return all members below a folder, or the one of that name."""
        start = self._strip_protocol(path).rstrip("/").removeprefix("./")
        below = {
            name: self.dir_cache[name]
            for name in self._members
            if not start or f"{name.removeprefix('./')}/".startswith(f"{start}/")
        }
        return below if detail else sorted(below)

    def _get_dirs(self) -> None:
        """Do nothing: the index is complete."""

    def _open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        if mode != "rb":
            raise ValueError("archives are only read")
        if path not in self._members:
            raise IsADirectoryError(path) if path in self.dir_cache else FileNotFoundError(path)
        with self._lock:
            return _Locked(self._members[path][1](), self._lock)  # type: ignore[return-value]

    def _index_zip(self, archive: zipfile.ZipFile) -> None:
        for member in archive.infolist():
            mode = member.external_attr >> 16
            is_link = member.create_system == _UNIX and stat.S_ISLNK(mode)
            if not member.is_dir() and not is_link:
                self._add(
                    member.filename,
                    member.file_size,
                    member.header_offset,
                    functools.partial(archive.open, member),
                )

    def _index_tar(self, archive: tarfile.TarFile) -> None:
        stored = {posixpath.normpath(member.name): member for member in archive}
        for member in archive.getmembers():
            target = _target(member, stored)
            if target is not None and target.isreg():
                self._add(
                    member.name,
                    target.size,
                    target.offset_data,
                    functools.partial(archive.extractfile, target),  # type: ignore[arg-type]
                )

    def _add(self, name: str, size: int, offset: int, opener: Callable[[], IO[bytes]]) -> None:
        self.dir_cache[name] = {"name": name, "size": size, "type": "file"}
        self._members[name] = offset, opener


def _target(
    member: tarfile.TarInfo, stored: Mapping[str, tarfile.TarInfo]
) -> tarfile.TarInfo | None:
    """Return what a link leads to, or None if that is not in the archive or leads in a circle."""
    target: tarfile.TarInfo | None = member
    for _ in range(_MOST_LINKS):
        if target is None or not (target.islnk() or target.issym()):
            return target
        folder = posixpath.dirname(target.name) if target.issym() else ""
        target = stored.get(posixpath.normpath(posixpath.join(folder, target.linkname)))
    return None


class _Locked:
    """A member's file: all members of an archive share one position in one open file."""

    def __init__(self, file: IO[bytes], lock: threading.RLock) -> None:
        self._file, self._lock = file, lock

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._lock:
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return self._file.seekable()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_opened: OrderedDict[tuple[str, str], ArchiveFileSystem] = OrderedDict()
_opening = threading.Lock()


def open_archive(
    location: str, scheme: str, version: str | None, opener: Callable[[], IO[bytes]]
) -> ArchiveFileSystem:
    """Return the members of an archive, from this process's cache if it has this version of it.

    Args:
        location: of the archive, with all that tells it from another one.
        scheme: ``zip`` or ``tar``.
        version: its etag or time of change; an archive without one is opened each time.
        opener: opens the archive.
    """
    with _opening:
        key = scheme, location
        known = _opened.get(key)
        if known is None or known.version is None or known.version != version:
            file = opener()
            try:
                known = ArchiveFileSystem(file, scheme, version)
            except BaseException:
                file.close()
                raise
            _opened[key] = known
        _opened.move_to_end(key)
        while len(_opened) > _OPEN_ARCHIVES:
            _opened.popitem(last=False)  # closed when the last of its members is
        return known
