"""The store of an output: whole files that appear at once, or not at all.

Local files are written to a temporary file next to the target, synced and renamed. Remote files are
sent as one object, which S3, GCS and Azure show only when it is complete. Errors that may pass
(time-outs, 5xx, cut connections) are retried with growing pauses. Every error becomes a
:class:`~salip_ray.errors.StoreError` whose message holds no signature, key or password.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from salip_ray.errors import StoreError
from salip_ray.output.local_files import create_file, is_temporary, replace_file
from salip_ray.output.store_clients import (
    Version,
    is_refused_condition,
    name_of,
    require_missing,
    version_of,
)
from salip_ray.output.store_location import ATTEMPTS, StoreLocation
from salip_ray.sources.locations import join
from salip_ray.sources.stores import read_existing


class UnconditionalStoreError(StoreError):
    """The store has no conditional write."""


class Store(StoreLocation):
    """Reads and writes whole files under one location; cheap to pickle.

    Args and errors are those of :class:`~salip_ray.output.store_location.StoreLocation`.
    """

    # ---------------------------------------------------------------------------------- reading

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None if it does not exist.

        Raises:
            StoreError: it cannot be read.
        """
        fs, path = self._locate(name)
        with self._explaining("read", name):
            try:
                return bytes(self._retry(lambda: fs.cat_file(path)))
            except FileNotFoundError as error:
                require_missing(error)
                return None

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of several files by name, fetched together; missing ones are left out.

        Raises:
            StoreError: one of them cannot be read.
        """
        if not names:
            return {}
        fs, root = self._filesystem()
        paths = {join(root, name): name for name in names}
        contents: dict[str, bytes] = {}
        for path, data in read_existing(fs, paths, attempts=ATTEMPTS).items():
            with self._explaining("read", paths[path]):
                if isinstance(data, Exception):
                    raise data
                contents[paths[path]] = data
        return contents

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Open a file for reading parts of it.

        Raises:
            FileNotFoundError: it does not exist.
            StoreError: it cannot be read, or its content cannot be parsed inside the context.
        """
        fs, path = self._locate(name)
        stream = None
        with self._explaining("read", name):
            try:
                stream = self._retry(lambda: fs.open(path, "rb"))
            except FileNotFoundError as error:
                require_missing(error)
        if stream is None:
            raise FileNotFoundError(self.path_of(name))
        with self._explaining("read", name), stream:
            yield stream

    def exists(self, name: str) -> bool:
        """Return True if there is a file or folder of this name.

        Raises:
            StoreError: the store does not answer.
        """
        fs, path = self._locate(name)
        with self._explaining("read", name):
            fs.invalidate_cache()
            return bool(self._retry(lambda: fs.exists(path)))

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the entries of a folder; none if it does not exist.

        Temporary files of killed writers are left out.

        Raises:
            StoreError: the folder cannot be listed.
        """
        names = (name_of(path) for path in self._list(folder, detail=False))
        return sorted(name for name in names if not is_temporary(name))

    def versions(self, folder: str = "") -> dict[str, Version]:
        """Return the entries of a folder by name, each with the version of its content.

        Raises:
            StoreError: the folder cannot be listed.
        """
        versions = {}
        for entry in self._list(folder, detail=True):
            name = name_of(entry["name"])
            if not is_temporary(name):
                versions[name] = version_of(entry)
        return versions

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of each file in a folder; its sub-folders are left out.

        Raises:
            StoreError: the folder cannot be listed.
        """
        entries = (entry for entry in self._list(folder, detail=True) if entry["type"] == "file")
        sizes = {name_of(entry["name"]): int(entry["size"]) for entry in entries}
        return {name: size for name, size in sizes.items() if not is_temporary(name)}

    def temporary_names(self, folder: str = "") -> list[str]:
        """Return the names of temporary files that killed writers left in a folder."""
        names = (name_of(path) for path in self._list(folder, detail=False))
        return sorted(name for name in names if is_temporary(name))

    def all_names(self) -> set[str]:
        """Return the paths of all files under the location, relative to it.

        Raises:
            StoreError: the location cannot be listed.
        """
        fs, root = self._filesystem()
        with self._explaining("read", ""):
            fs.invalidate_cache()
            try:
                paths = self._retry(lambda: fs.find(root))
            except FileNotFoundError as error:
                require_missing(error)
                return set()
        prefix = f"{root.rstrip('/')}/"
        names = {path.removeprefix(prefix) for path in paths}
        return {name for name in names if not is_temporary(name_of(name))}

    def read_with_version(self, name: str) -> tuple[bytes | None, Version | None]:
        """Return the bytes of a file and their version, both None if it does not exist.

        The version is never newer than the bytes, so that :meth:`replace` with it refuses to
        overwrite what was not read.

        Raises:
            StoreError: it cannot be read.
        """
        fs, path = self._locate(name)
        with self._explaining("read", name):
            fs.invalidate_cache()
            try:
                version = version_of(self._retry(lambda: fs.info(path)))
            except FileNotFoundError as error:
                require_missing(error)
                return None, None
        return self.read(name), version

    # ---------------------------------------------------------------------------------- writing

    def write(self, name: str, data: bytes) -> None:
        """Write a file in one step, replacing an earlier one.

        Raises:
            StoreError: it cannot be written.
        """
        with self._explaining("write", name):
            fs, path = self._locate(name)
            if self._is_on_disk(name):
                replace_file(Path(path), data)
            else:
                self._retry(lambda: fs.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if it does not exist; return False if it does.

        Raises:
            UnconditionalStoreError: the store cannot do this in one step.
            StoreError: it cannot be written.
        """
        fs, path = self._locate(name)
        with self._explaining("write", name):
            try:
                if self._is_on_disk(name):
                    return create_file(Path(path), data)
                # No retry: a repeated request could be refused because of the first one.
                fs.pipe_file(path, data, mode="create")
            except (TypeError, ValueError, NotImplementedError):
                raise UnconditionalStoreError(f"{self} has no conditional write") from None
            except Exception as error:
                if is_refused_condition(error):
                    return False
                raise
            return True

    def replace(self, name: str, data: bytes, version: Version) -> bool:
        """Write a file only if it still has a version; return False if it has another one.

        Raises:
            UnconditionalStoreError: the store cannot do this in one step.
            StoreError: it cannot be written.
        """
        fs, path = self._locate(name)
        etag = next((value for value in version if value.startswith('"')), None)
        if self._is_on_disk(name) or "s3" not in fs.protocol or etag is None:
            raise UnconditionalStoreError(f"{self} has no conditional write")
        with self._explaining("write", name):
            try:
                fs.pipe_file(path, data, IfMatch=etag)
            except Exception as error:
                if is_refused_condition(error):
                    return False
                raise
            return True

    def link(self, name: str, target: Path) -> bool:
        """Make a symbolic link to a file of this machine; return False if the store cannot.

        Args:
            name: of the link.
            target: the file.
        """
        if not self._is_on_disk(name):
            return False
        link = Path(self._locate(name)[1])
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target.absolute())
        except OSError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete a file if it exists.

        Raises:
            StoreError: it cannot be deleted.
        """
        fs, path = self._locate(name)
        with self._explaining("delete", name), contextlib.suppress(FileNotFoundError):
            self._retry(lambda: fs.rm_file(path))

    def sweep(self) -> None:
        """Delete the temporary files of killed writers in a local location and its folders.

        Raises:
            StoreError: one of them cannot be deleted.
        """
        path = Path(self.location)
        if not self.is_local or not path.is_dir():
            return
        with self._explaining("sweep", ""):
            for entry in path.rglob("*"):
                if is_temporary(entry.name) and not entry.is_dir():
                    entry.unlink(missing_ok=True)

    def _list(self, folder: str, *, detail: bool) -> list[Any]:
        """List a folder: paths, or the filesystem's description of each entry."""
        fs, root = self._filesystem()
        path = join(root, folder) if folder else root
        with self._explaining("read", folder):
            fs.invalidate_cache()
            try:
                entries = self._retry(lambda: fs.ls(path, detail=detail))
            except FileNotFoundError as error:
                require_missing(error)
                return []
        # Some stores list a prefix as an entry of itself.
        return [e for e in entries if (e["name"] if detail else e).rstrip("/") != path]
