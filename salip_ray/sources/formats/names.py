"""File names inside URIs, including those of archive members.

A member is written as fsspec chains it: ``zip://folder/a.png::s3://bucket/images.zip``.
"""

from __future__ import annotations

import re

ARCHIVES = {
    ".zip": "zip",
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tb2"), "tar"),
    **dict.fromkeys((".tar.xz", ".txz", ".tar.lzma", ".tlz"), "tar"),
}
"""Suffixes of archives whose members can be listed, and their schemes."""

CLOSED_ARCHIVES = (".7z", ".rar", ".tar.zst", ".tzst", ".tar.lz", ".tar.z")
"""Suffixes of archives that cannot be read."""

_CHAINED = ("zip://", "tar://", "libarchive://")
_ABSOLUTE = re.compile(r"/|[a-z][a-z0-9+.-]*://|(?:simple|file|block)cache::", re.IGNORECASE)
_QUERY = re.compile(r"\?[\w%.~-]+=[^/]*\Z")
_FILE_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{1,5}(?:\.gz)?\Z", re.IGNORECASE)


def split_member(name: str) -> tuple[str, str]:
    """Return the location inside an archive, and the archive's own location.

    The second is empty for a location that is not inside an archive. Names may hold ``::``: the
    archive begins at the first one that a path or a URI follows.
    """
    if not name.lower().startswith(_CHAINED):
        return name, ""
    start = 0
    while (start := name.find("::", start)) >= 0:
        if _ABSOLUTE.match(name, start + 2):
            return name[:start], name[start + 2 :]
        start += 1
    head, chain, archive = name.rpartition("::")  # a relative path
    is_archive = chain and ("." not in archive or archive.lower().endswith(tuple(ARCHIVES)))
    return (head, archive) if is_archive else (name, "")


def split_query(name: str) -> tuple[str, str]:
    """Split a URI before the ``?`` of its query or the ``#`` of its fragment.

    Only HTTP has queries by its standard. Elsewhere a ``?`` is part of a file name, unless
    ``name=value`` follows and the whole does not end like a file name.
    """
    if name.lower().startswith(("http://", "https://")):
        path = re.split(r"[?#]", name, maxsplit=1)[0]
        return path, name[len(path) :]
    if "://" in name and (match := _QUERY.search(name)) and not _FILE_SUFFIX.search(name):
        return name[: match.start()], name[match.start() :]
    return name, ""


def file_name(name: str) -> str:
    """Return the last part of a URI's path, without a query."""
    return split_query(split_member(name)[0])[0].rpartition("/")[2]


def suffix(name: str) -> str:
    """Return the lower-case suffix of a URI, with ``.gz`` joined to the one before it (.nii.gz)."""
    stem, dot, last = file_name(name).lower().rpartition(".")
    if last == "gz" and "." in stem:
        return f".{stem.rpartition('.')[2]}.gz"
    return f".{last}" if dot and stem else ""


def archive_scheme(name: str) -> str | None:
    """Return ``zip`` or ``tar`` if a location is an archive by its name, else None."""
    tail = file_name(name).lower()
    endings = [ending for ending in ARCHIVES if tail.endswith(ending) and tail != ending]
    return ARCHIVES[max(endings, key=len)] if endings else None


def is_bare(name: str) -> bool:
    """Return True if a name has no suffix, like many DICOM files; a UID's digits are no suffix."""
    return not suffix(name).strip(".0123456789") and file_name(name).upper() != "DICOMDIR"


def stem(name: str) -> str:
    """Return the file name of a URI without its folder, query and suffix."""
    tail, ending = file_name(name), suffix(name)
    return tail[: len(tail) - len(ending)] if ending else tail
