"""Patterns of file names: wildcards in a location, ``--include`` and ``--exclude``."""

from __future__ import annotations

import fnmatch
import functools
import re
from dataclasses import dataclass
from typing import Any

from salip_ray.errors import InputError


@dataclass(frozen=True)
class FileFilter:
    """Which files of an input a job takes.

    A pattern without a slash matches the name of a file, or of any folder that it is in. One with a
    slash is matched from the input's own folder on; of a folder it matches all that is below. ``*``
    and ``?`` stand for characters of one name, ``**`` for any folders, ``[ab]`` for one of a few.

    Attributes:
        include: patterns, one of which a file must match; any file if there are none.
        exclude: patterns, none of which it may match.
        limit: at most so many files: the first in the order of their URIs.

    Raises:
        InputError: a pattern is empty, or the limit is below 1.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            if not all(pattern.strip("/ ") for pattern in getattr(self, name)):
                raise InputError(f"--{name} has an empty pattern: give one, such as '*_mask.png'")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit must be 1 or more, found {self.limit}")

    def to_json(self) -> dict[str, Any]:
        """Return what differs from taking everything: it belongs to the identity of a job."""
        values = {
            "include": sorted(set(self.include)),
            "exclude": sorted(set(self.exclude)),
            "limit": self.limit,
        }
        return {name: value for name, value in values.items() if value}

    def takes(self, path: str) -> bool:
        """Return True if a file is included and not excluded.

        Args:
            path: of the file, relative to the input.
        """
        if self.include and not any(matches(path, pattern) for pattern in self.include):
            return False
        return not any(matches(path, pattern) for pattern in self.exclude)


def matches(path: str, pattern: str) -> bool:
    """Return True if a pattern of :class:`FileFilter` matches a relative path."""
    pattern = pattern.removeprefix("./")
    if "/" in pattern.rstrip("/"):
        return bool(_below(pattern.strip("/")).match(path))
    folder_only = pattern.endswith("/")
    *folders, name = path.split("/")
    names = folders if folder_only else [*folders, name]
    return any(fnmatch.fnmatchcase(part, pattern.rstrip("/")) for part in names)


@functools.cache
def _below(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{translate(pattern)}(?:/|\\Z)", re.DOTALL)


def translate(pattern: str) -> str:
    """Return the regular expression of a pattern, each part of which may also be meant literally.

    So a folder called ``study [1]`` is found by its own name.
    """
    parts = pattern.split("/")
    pieces: list[str] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            pieces.append(".*" if last else "(?:.*/)?")
            continue
        pieces.append(_one_name(part) + ("" if last else "/"))
    return "".join(pieces)


def _one_name(part: str) -> str:
    literal, wild = re.escape(part), _wild(part)
    return literal if literal == wild else f"(?:{literal}|{wild})"


def _wild(part: str) -> str:
    signs = re.findall(r"\[!?\]?[^\]]*\]|\*+|.", part, re.DOTALL)
    return "".join(map(_piece, signs))


def _piece(sign: str) -> str:
    if sign == "?":
        return "[^/]"
    if sign.startswith("*"):
        return "[^/]*"
    if len(sign) > 1:  # a set of characters
        inside = sign[1:-1]
        negated = inside.startswith("!")
        inside = inside[negated:].replace("\\", r"\\").replace("^", r"\^").replace("[", r"\[")
        inside = inside.replace("]", r"\]").replace("&&", r"&\&").replace("||", r"|\|")
        return f"[{'^/' if negated else ''}{inside}]"
    return re.escape(sign)
