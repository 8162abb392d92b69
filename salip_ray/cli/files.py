"""Local files that commands write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from salip_ray.errors import OutputError


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn an error of the disk while ``what`` is written into one of a line.

    Raises:
        OutputError: ``what`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {error.strerror or error}") from None


def require_no_folder(option: str, file: Path | None) -> None:
    """Raise OutputError if the file of an option is a folder, before work is lost."""
    if file is not None and file.is_dir():
        raise OutputError(f"{option} {file} is a folder: give the name of a file")


def require_folder(option: str, folder: Path) -> None:
    """Make a folder.

    Raises:
        OutputError: something that is no folder has its name, or it cannot be made.
    """
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise OutputError(f"{option} {folder} is a file or in one: give a folder")
    with writing(f"{option} {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
