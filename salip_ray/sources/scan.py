"""The files that lie at a location, of whatever kind they are, streamed from the disk or store."""

from __future__ import annotations

import glob as local_glob
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salip_ray.errors import InputError
from salip_ray.sources.formats.names import split_member, suffix
from salip_ray.sources.locations import filesystem, found_at, is_glob, join

#: What a listing yields: address, size in bytes, etag (either None where the store does not say).
Entry = tuple[str, int | None, str | None]


@dataclass
class Skipped:
    """How many names a listing left out."""

    hidden: int = 0
    other: int = 0  # not an image's suffix
    unnamed: int = 0  # a name that is not valid UTF-8
    linked: int = 0  # a link to a folder

    def __str__(self) -> str:
        kinds = (
            (self.other, "without an image suffix"),
            (self.hidden, "hidden"),
            (self.unnamed, "whose name is not UTF-8"),
            (self.linked, "linking to a folder"),
        )
        return ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)


# --------------------------------------------------------------------------------------- local


def find_local(where: str, skipped: Skipped) -> Iterator[Entry]:
    """The files of a folder and all below it, of a glob, or the one of that name.

    Raises:
        InputError: nothing is there.
    """
    path = Path(where)
    if path.is_dir():
        yield from _walk(where, skipped)
    elif path.exists():
        yield _local_entry(where, path.stat())
    elif is_glob(where):
        for name in local_glob.iglob(where, recursive=True):  # noqa: PTH207 (the pattern is a path)
            try:
                status = Path(name).stat()
            except FileNotFoundError:
                yield name, None, None  # a dangling link: its row will say so
                continue
            if stat.S_ISREG(status.st_mode):
                yield _local_entry(name, status)
    else:
        raise InputError(f"input {where} does not exist")


def _walk(folder: str, skipped: Skipped) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, skipped)
            elif entry.is_file():
                yield _local_entry(entry.path, entry.stat())
            elif entry.is_dir():
                skipped.linked += 1
            elif entry.is_symlink():
                yield entry.path, None, None  # dangling: its row will say so


def _local_entry(path: str, status: os.stat_result) -> Entry:
    # The time of the last change stands in for an etag, as in make and rsync.
    return path, status.st_size, f"{status.st_mtime_ns:x}"


# -------------------------------------------------------------------------------------- remote


def find_remote(where: str, storage_options: Mapping[str, Any] | None) -> Iterator[Entry]:
    """The same of a store or an archive, and of a prefix of names; nothing where nothing is."""
    fs, path = filesystem(where, storage_options)
    fs.invalidate_cache()
    scheme = where.partition("://")[0]

    def entry(info: Mapping[str, Any]) -> Entry:
        etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
        address = found_at(str(info["name"]), where, path)
        return address, info.get("size"), str(etag).strip('"') if etag else None

    if archive := split_member(where)[1]:
        yield from _members(fs, path, scheme, archive, storage_options)
        return
    if is_glob(where):
        found = fs.glob(path, detail=True).values()
        yield from (entry(info) for info in found if info["type"] == "file")
        return
    pages = _s3_pages if scheme == "s3" else _found
    any_found = False
    if not where.endswith("/") and suffix(where) and fs.isfile(path):
        yield entry(fs.info(path))
        return
    for start in (path.rstrip("/") + "/", path):  # a folder, else a prefix of names
        for info in pages(fs, start):
            any_found = True
            yield entry(info)
        if any_found:
            return


def _members(
    fs: Any, path: str, scheme: str, archive: str, storage_options: Mapping[str, Any] | None
) -> Iterator[Entry]:
    """The members of an archive below a path or of a glob; the archive's etag is that of each."""
    store, place = filesystem(archive, storage_options)
    about = store.info(place)
    tag = about.get("ETag") or about.get("etag") or about.get("mtime")
    below = fs.find if not path or fs.isdir(path) else fs.glob
    for name, info in below(path, detail=True).items():
        if info["type"] == "file":
            size = info.get("size")
            yield f"{scheme}://{name}::{archive}", size, None if tag is None else str(tag)


def _s3_pages(fs: Any, start: str) -> Iterator[Mapping[str, Any]]:
    """List page by page; fsspec's ``find`` would hold a dict for each object at once."""
    bucket, _, prefix = start.partition("/")
    token: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                name = join(bucket, item["Key"])
                yield {"name": name, "size": item["Size"], "ETag": item.get("ETag")}
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _found(fs: Any, start: str) -> Iterator[Mapping[str, Any]]:
    if start.endswith("/"):
        try:
            yield from fs.find(start.rstrip("/"), detail=True).values()
        except FileNotFoundError:
            return
    else:
        # fsspec finds folders, not prefixes: what is one level up, and then below.
        for info in fs.glob(f"{start}*", detail=True).values():
            if info["type"] == "directory":
                yield from fs.find(info["name"], detail=True).values()
            else:
                yield info
