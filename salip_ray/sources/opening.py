"""Read parts of files, and distinguish errors of a file from errors of its store.

The content of a file decides which rows a job has, and these rows are frozen. A missing or damaged
file stays so, and becomes an error row. If a store does not return a file, its rows are unknown,
and the listing stops with an error.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeVar, cast

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from salip_ray.errors import InputError, SalipError
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.local_files import open_regular
from salip_ray.sources.locations import filesystem, path_in, public_uri
from salip_ray.sources.remote_readers import read_remote_head
from salip_ray.sources.stores import describe_error, http_status, underlying_error, with_retries

BLOCK = 1 << 16  #: bytes read at a time from a store
MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_IMPOSSIBLE = frozenset({errno.ENAMETOOLONG, errno.ELOOP})
_MISSING_STATUS = frozenset({404, 410, 416})  # 416: a range beyond the end
_REFUSED_STATUS = frozenset({401, 403})
#: Errors of reading a member of an archive that is damaged or locked.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, RuntimeError),
)
T = TypeVar("T")


def parsed(
    address: str,
    parse: Callable[[IO[bytes]], T],
    storage_options: Mapping[str, Any] | None,
) -> T | Exception:
    """Parse the head of a file; return the result, or the error if the file itself causes it.

    A refusal of access counts as such an error: some of many files may not be readable, and their
    rows report it.
    """

    def read(fs: Any, path: str) -> T | Exception:
        with open_file(fs, path) as opened:
            file = _Watched(opened)
            result: T | Exception
            try:
                result = parse(cast("IO[bytes]", file))
            except Exception as error:  # noqa: BLE001  (parsers raise many types)
                result = error
            if file.failure is not None and not _lies_in_file(file.failure, address):
                raise file.failure
            return result

    return ask(address, read, storage_options, refusal=True)


def open_file(fs: Any, path: str) -> IO[bytes]:
    """Open a file of a filesystem to read parts of it; a local one must be a regular file."""
    if isinstance(fs, LocalFileSystem):
        return open_regular(path)
    return cast("IO[bytes]", fs.open(path, "rb", block_size=BLOCK))


def read_head(fs: Any, address: str, count: int) -> bytes:
    """Return the first ``count`` bytes of a file, fewer if it is shorter."""
    path = path_in(fs, address)
    if isinstance(fs, LocalFileSystem):
        with open_regular(path) as file:
            return bytes(file.read(count))
    if isinstance(fs, AsyncFileSystem):
        return read_remote_head(fs, path, count)
    return bytes(fs.cat_file(path, start=0, end=count))


def ask(
    address: str,
    question: Callable[[Any, str], T],
    storage_options: Mapping[str, Any] | None,
    *,
    refusal: bool = False,
) -> T | Exception:
    """Call a function of a filesystem and a path; return the result, or an error of the file.

    Args:
        address: of the file.
        question: called with the filesystem and the path.
        storage_options: options of the fsspec filesystem.
        refusal: return a refusal of access like an error of the file.

    Raises:
        InputError: the store failed at each retry.
    """

    def answer() -> T | Exception:
        try:
            return question(*filesystem(address, storage_options))
        except Exception as error:  # noqa: BLE001  (sorted below)
            problem = underlying_error(error)
            if _lies_in_file(problem, address) or (refusal and _is_refusal(problem)):
                return problem
            raise problem from None

    try:
        return with_retries(answer)
    except SalipError:
        raise
    except Exception as error:  # noqa: BLE001  (clients of stores raise many types)
        raise InputError(
            f"{public_uri(address)} cannot be read: {describe_error(error, address)}; "
            "make it readable or leave it out, and run this again"
        ) from None


class _Watched:
    """A file that records the error of its store, which parsers may hide or replace."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, PermissionError) or http_status(error) in _REFUSED_STATUS


def _lies_in_file(error: Exception, address: str) -> bool:
    """Return True if a file is missing, damaged or badly named: a retry cannot change that."""
    if isinstance(error, OSError) and error.errno in _IMPOSSIBLE:
        return True
    if split_member(address)[1] and isinstance(error, _DAMAGED):
        return True
    # ValueError: a NUL in the name, or a negative offset. The others: too many bytes requested.
    its_own = (*MISSING, ValueError, OverflowError, MemoryError)
    return isinstance(error, its_own) or http_status(error) in _MISSING_STATUS
