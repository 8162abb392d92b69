"""File names inside URIs, those of members of archives included.

A member is written as fsspec chains it: ``zip://folder/a.png::s3://bucket/images.zip``.
"""

from __future__ import annotations

ARCHIVES = {".zip": "zip", ".tar": "tar", ".tgz": "tar", ".tar.gz": "tar"}
"""Suffixes of archives whose members are listed, and their schemes."""


def split_member(name: str) -> tuple[str, str]:
    """A location inside an archive and the archive's own, which is empty for other locations."""
    head, chain, archive = name.partition("::")
    return (head, archive) if chain and "://" in head else (name, "")


def suffix(name: str) -> str:
    """The lower-case suffix of a URI, ``.gz`` joined to the one before it (``.nii.gz``)."""
    tail = split_member(name)[0].partition("?")[0].rpartition("/")[2].lower()
    stem, dot, last = tail.rpartition(".")
    if last == "gz" and "." in stem:
        return f".{stem.rpartition('.')[2]}.gz"
    return f".{last}" if dot and stem else ""


def is_bare(name: str) -> bool:
    """Whether a name has no suffix, as those of DICOM files often; a UID's digits are none."""
    tail = split_member(name)[0].partition("?")[0].rpartition("/")[2]
    return not suffix(name).strip(".0123456789") and tail.upper() != "DICOMDIR"


def stem(name: str) -> str:
    """The file name of a URI without its folder, its query and its suffix."""
    tail = split_member(name)[0].partition("?")[0].rpartition("/")[2]
    ending = suffix(name)
    return tail[: len(tail) - len(ending)] if ending else tail
