"""Local files that are safe to read: regular ones, opened without waiting.

A name among the inputs may be, or point to, a FIFO, a device or a socket. Opening a FIFO waits for
a writer, and a device may have no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from salip_ray.errors import ImageError

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class NotRegularError(ImageError):
    """A name that is not that of a regular file."""


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file for reading.

    Raises:
        NotRegularError: it is a FIFO, a device or a socket.
        OSError: it cannot be opened, or is a folder.
    """
    status = Path(path).stat()  # opening some devices has effects, such as rewinding a tape
    _require_regular(path, status)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def etag_of(status: os.stat_result) -> str:
    """Return what stands in for an etag: the time of the last change, as make and rsync use it."""
    return f"{status.st_mtime_ns:x}"


def _require_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(f"{path} is a folder")
    if kind != stat.S_IFREG:
        raise NotRegularError(f"{path} is {_KINDS.get(kind, 'not a file')}, not a regular file")
