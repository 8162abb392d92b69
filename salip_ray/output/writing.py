"""Writing files that are whole or not there, on local disk or any store that fsspec knows."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem


def write_whole(fs: Any, path: str, data: bytes) -> None:
    """Put ``data`` at a path of a filesystem in one step, replacing what was there.

    Raises:
        OSError: it cannot be written; stores may raise others.
    """
    if isinstance(fs, LocalFileSystem):
        _replace(Path(path), data)
    else:
        fs.pipe_file(path, data)  # an object appears when all of it was sent


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
