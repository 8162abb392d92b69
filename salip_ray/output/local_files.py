"""Local files that appear at once, or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_TEMPORARY = ".tmp"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step, replacing an earlier one; create its folder if needed.

    Raises:
        OSError: it cannot be written; the earlier file is unchanged.
    """
    temporary = _write_temporary(path, data)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def create_file(path: Path, data: bytes) -> bool:
    """Write a file in one step only if it does not exist; return False if it does.

    Raises:
        NotImplementedError: the file system has no hard links.
        OSError: it cannot be written.
    """
    temporary = _write_temporary(path, data)
    try:
        # A hard link shows the whole content at once, which open(..., "x") does not.
        os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):
        return False  # another writer was first, and deleted the temporary file
    except OSError as error:
        raise NotImplementedError(f"{path.parent} has no hard links") from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def is_temporary(name: str) -> bool:
    """Return True if a file has the name of a write that has not ended."""
    return name.startswith(".") and name.endswith(_TEMPORARY)


def _write_temporary(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
