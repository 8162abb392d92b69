"""The location of an output: where each file is, and how errors of its store are explained."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from salip_ray.errors import OutputError, StoreError
from salip_ray.output.store_clients import secrets_of
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri
from salip_ray.sources.stores import describe_error, underlying_error, with_retries

ATTEMPTS = 6
T = TypeVar("T")


class StoreLocation:
    """Knows the files under one location; the base of :class:`~salip_ray.output.store.Store`.

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
            if isinstance(error, NotADirectoryError):
                message = f"{self.location} is a file or in one, not a folder"
            for secret in secrets_of(self._options):
                message = message.replace(secret, "***")
            raise StoreError(f"cannot {verb} {self.path_of(name)}: {message}") from None
