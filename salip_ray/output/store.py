"""The store of an output: whole files that appear at once, or not at all.

Local files are written to a temporary file next to the target, synced and renamed. Remote files are
sent as one object, which S3, GCS and Azure show only when it is complete. Errors that may pass
(time-outs, 5xx, cut connections) are retried with growing pauses. Every error becomes a
:class:`~salip_ray.errors.StoreError` whose message holds no signature, key or password.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from salip_ray.errors import OutputError, StoreError
from salip_ray.output.local_files import create_file, is_temporary, replace_file
from salip_ray.output.store_clients import (
    Version,
    is_refused_condition,
    name_of,
    require_missing,
    secrets_of,
    version_of,
)
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri
from salip_ray.sources.stores import (
    describe_error,
    read_existing,
    underlying_error,
    with_retries,
)

ATTEMPTS = 6
T = TypeVar("T")


class UnconditionalStoreError(StoreError):
    """The store has no conditional write."""


class Store:
    """Reads and writes whole files under one location; cheap to pickle.

    Args:
        location: a folder or prefix.
        storage_options: fsspec options.
        elsewhere: files that are stored outside of the location, by their name in it; the options
            are the same.

    Raises:
        OutputError: a file of ``elsewhere`` is in the location, or its path has no name.
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
        for path in self._elsewhere.values():
            folder, _, name = normalise(path).rpartition("/")
            if not name or f"{folder}/".startswith(f"{self.location.rstrip('/')}/"):
                raise OutputError(f"{public_uri(path)} must be a file outside of {self}")

    def __repr__(self) -> str:
        return f"Store({public_uri(self.location)!r})"

    def __str__(self) -> str:
        return public_uri(self.location)

    @property
    def is_local(self) -> bool:
        """Return True if the location is a path on a local or mounted disk."""
        return not is_remote(self.location)

    def is_elsewhere(self, name: str) -> bool:
        """Return True if a file is stored outside of the location."""
        return name in self._elsewhere

    def path_of(self, name: str) -> str:
        """Return the public path of a file, for messages."""
        if name in self._elsewhere:
            return public_uri(self._elsewhere[name])
        return join(str(self), name) if name else str(self)

    def for_ray(self) -> tuple[str, Any]:
        """Return the location as Ray Train and Ray Tune take it: a path and a pyarrow filesystem.

        The filesystem is None if the location is local.
        """
        if self.is_local:
            return self.location, None
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        fs, path = filesystem(self.location, self._options)
        return path, PyFileSystem(FSSpecHandler(fs))

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

    # --------------------------------------------------------------------------------- internals

    def _filesystem(self) -> tuple[Any, str]:
        fs, path = filesystem(self.location, self._options)
        return fs, path.rstrip("/") or "/"

    def _locate(self, name: str) -> tuple[Any, str]:
        """Return the filesystem of a file, and its path there."""
        if name in self._elsewhere:
            return filesystem(self._elsewhere[name], self._options)
        fs, root = self._filesystem()
        return fs, join(root, name)

    def _is_on_disk(self, name: str) -> bool:
        return not is_remote(self._elsewhere.get(name, self.location))

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

    @staticmethod
    def _retry(action: Callable[[], T]) -> T:
        return with_retries(action, attempts=ATTEMPTS)

    @contextlib.contextmanager
    def _explaining(self, verb: str, name: str) -> Iterator[None]:
        """Turn every error of a store's client into a StoreError that names the file."""
        try:
            yield
        except OutputError:
            raise
        except Exception as error:  # noqa: BLE001  (each client raises its own errors)
            message = describe_error(
                underlying_error(error), self._elsewhere.get(name, self.location)
            )
            for secret in secrets_of(self._options):
                message = message.replace(secret, "***")
            raise StoreError(f"cannot {verb} {self.path_of(name)}: {message}") from None
