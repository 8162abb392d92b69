"""The folder of this user's notes in the shared temporary folder: private, or not used.

Its name can be guessed, and anyone may create it, or a link of that name, before. Nothing in a
folder of another owner is read, and nothing that a link leads to is deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from salip_ray.errors import ResourceError

_STALE_SECONDS = 86_400.0
_NOT_OURS = stat.S_IRWXG | stat.S_IRWXO


def private_folder() -> Path:
    """Return the folder of this user's notes, made if need be; only this user may enter it.

    Raises:
        ResourceError: another user made it, others may write to it, or it is a link or a file.
    """
    folder = Path(tempfile.gettempdir()) / f"salip-ray-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or others_write:
        raise ResourceError(
            f"temporary folder {folder} is not private to this user, and may have been planted: "
            "delete it, or set TMPDIR to a folder that nobody else may write to"
        )
    if status.st_mode & _NOT_OURS:
        folder.chmod(0o700)
    return folder


def open_note(path: Path) -> int | None:
    """Open a note to read and lock it; None if it is not a regular file of this user."""
    try:
        note = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(note)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
        return note
    os.close(note)
    return None


def remove_folder(folder: Path) -> None:
    """Remove the notes of a run, if nobody holds one of them."""
    if folder.is_symlink() or not folder.is_dir() or any(_locked(folder)):
        return
    shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders(parent: Path, own: Path) -> None:
    """Remove the notes of other runs that ended long ago."""
    for other in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if other != own and time.time() - other.lstat().st_mtime > _STALE_SECONDS:
                remove_folder(other)


def _locked(folder: Path) -> Iterator[bool]:
    """Yield for each note of a run whether a live worker holds it."""
    for path in folder.iterdir():
        note = open_note(path)
        if note is None:
            continue
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield False
        except OSError:
            yield True
        finally:
            os.close(note)
