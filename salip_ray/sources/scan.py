"""List the files at a location, of whatever kind, streamed from the disk or store."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from salip_ray.errors import InputError
from salip_ray.sources.archives import ArchiveFileSystem
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.local_files import etag_of
from salip_ray.sources.locations import (
    address_of,
    filesystem,
    is_glob,
    is_remote,
    public_uri,
    root_of,
    version_of,
)
from salip_ray.sources.patterns import translate
from salip_ray.wording import counted

#: What a listing yields: address, size in bytes, etag (either None if the store does not say).
ListedFile = tuple[str, int | None, str | None]


@dataclass
class Skipped:
    """How many names a listing left out, by reason."""

    other: int = 0  # no suffix of an image
    archives: int = 0
    hidden: int = 0
    unnamed: int = 0  # a name that is not valid UTF-8
    linked: int = 0  # a link to a folder
    circular: int = 0  # a link that leads in a circle
    special: int = 0  # a FIFO, device or socket
    excluded: int = 0  # by --include, --exclude or --limit

    def __str__(self) -> str:
        kinds = (
            (counted(self.other, "file"), "without an image suffix"),
            (counted(self.archives, "archive"), "(give each as an input)"),
            (counted(self.hidden, "hidden file"), ""),
            (counted(self.unnamed, "name"), "not in UTF-8"),
            (counted(self.linked, "link"), "to a folder"),
            (counted(self.circular, "link"), "in a circle"),
            (counted(self.special, "FIFO or device", "FIFOs or devices"), ""),
            (counted(self.excluded, "file"), "by --include, --exclude or --limit"),
        )
        return ", ".join(f"{n} {kind}".strip() for n, kind in kinds if not n.startswith("0 "))

    def counts(self) -> dict[str, int]:
        """Return the reasons that occurred, and how often."""
        counts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: count for name, count in counts.items() if count}


def is_pattern(location: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Return True if a location has wildcards and nothing of that very name exists."""
    if not is_glob(location):
        return False
    if not is_remote(location):
        return not os.path.lexists(location)
    fs, path = filesystem(location, storage_options)
    if location.startswith("s3://"):
        return next(_s3_pages(fs, path), None) is None
    return not fs.exists(path)


# --------------------------------------------------------------------------------------- local


def find_local(where: str, skipped: Skipped) -> Iterator[ListedFile]:
    """Yield the files below a folder, those that a pattern matches, or the one of that name.

    Raises:
        InputError: nothing is there.
    """
    if is_pattern(where):
        yield from _matching(where, skipped)
    elif Path(where).is_dir():
        yield from _walk(where, skipped)
    elif os.path.lexists(where):
        yield from _file(where, skipped)
    else:
        raise InputError(f"input {where} does not exist: check the path")


def _matching(pattern: str, skipped: Skipped) -> Iterator[ListedFile]:
    if "**" not in pattern:
        for name in glob.iglob(_escape_existing(pattern), include_hidden=True):  # noqa: PTH207
            yield from _file(name, skipped, in_folder=False)
        return
    # Walked, because a recursive glob follows links to folders, also in circles.
    wanted = re.compile(translate(pattern), re.DOTALL)
    for entry in _walk(root_of(pattern).rpartition("/")[0] or "/", skipped):
        if wanted.fullmatch(entry[0]):
            yield entry


def _escape_existing(pattern: str) -> str:
    """Escape the leading folders of a pattern that exist by their very names."""
    parts = pattern.split("/")
    count = next(
        (n for n in range(len(parts) - 1, 0, -1) if Path("/".join(parts[:n]) or "/").is_dir()), 0
    )
    return "/".join([*map(glob.escape, parts[:count]), *parts[count:]])


def _walk(root: str, skipped: Skipped) -> Iterator[ListedFile]:
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield from _file(entry.path, skipped)


def _file(path: str, skipped: Skipped, *, in_folder: bool = True) -> Iterator[ListedFile]:
    """Yield one file, or count why it is left out; a dangling link's row will say so."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        yield path, None, None
    except OSError:  # ELOOP; permissions concern folders only
        if not Path(path).is_symlink():
            raise
        skipped.circular += 1
    else:
        if stat.S_ISREG(status.st_mode):
            yield path, status.st_size, etag_of(status)
        elif not stat.S_ISDIR(status.st_mode):
            skipped.special += 1
        elif in_folder:
            skipped.linked += 1


# -------------------------------------------------------------------------------------- remote


def find_remote(
    where: str, storage_options: Mapping[str, Any] | None, *, pattern: bool
) -> Iterator[ListedFile]:
    """Yield the files below a prefix of a store or archive, or those that a pattern matches.

    Args:
        where: the location; a name without a slash at its end is a file, a folder or a prefix.
        storage_options: of the store.
        pattern: read wildcards in the location as such.
    """
    archive = split_member(where)[1]
    if archive:
        yield from _members(where, archive, storage_options, pattern=pattern)
        return
    fs, path = filesystem(where, storage_options)
    fs.invalidate_cache()
    if where.startswith("s3://"):
        yield from _s3_files(fs, where, pattern=pattern)
        return

    def entry(info: Mapping[str, Any]) -> ListedFile:
        etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
        address = address_of(str(info["name"]), where, path)
        return address, info.get("size"), str(etag).strip('"') if etag else None

    if pattern:
        infos = fs.glob(path, detail=True).values()
        yield from (entry(info) for info in infos if info["type"] == "file")
        return
    if not where.endswith("/") and fs.isfile(path):
        yield entry(fs.info(path))
        return
    for start in (path.rstrip("/") + "/", path):  # a folder, else a prefix of names
        any_below = False
        for info in _below(fs, start):
            any_below = True
            yield entry(info)
        if any_below:
            return


def _members(
    where: str, archive: str, storage_options: Mapping[str, Any] | None, *, pattern: bool
) -> Iterator[ListedFile]:
    """Yield the members of an archive; the archive's etag is that of each."""
    store, archive_path = filesystem(archive, storage_options)
    try:
        tag = version_of(store.info(archive_path))
    except FileNotFoundError:
        raise InputError(f"archive {public_uri(archive)} does not exist: check the path") from None
    scheme = where.partition("://")[0]
    fs, path = filesystem(where, storage_options)
    if isinstance(fs, ArchiveFileSystem):
        members = fs.members() if pattern else fs.find(path, detail=True).values()
        wanted = re.compile(translate(path), re.DOTALL) if pattern else None
    else:
        members = fs.glob(path, detail=True) if pattern else fs.find(path, detail=True)
        members, wanted = members.values(), None
    for info in members:
        if info["type"] == "file" and (wanted is None or wanted.fullmatch(info["name"])):
            yield f"{scheme}://{info['name']}::{archive}", info.get("size"), tag


def _s3_files(fs: Any, where: str, *, pattern: bool) -> Iterator[ListedFile]:
    """Yield the objects of a bucket; keys are taken as they are."""
    path, slash = where.removeprefix("s3://"), where.endswith("/")
    if pattern:
        wanted = re.compile(f"s3://{translate(path)}", re.DOTALL)
        objects = _s3_pages(fs, root_of(where).removeprefix("s3://"))
        yield from (entry for entry in objects if wanted.fullmatch(entry[0]))
        return
    bucket, key = _bucket_and_key(path)
    if key and not slash:
        try:
            info = fs.call_s3("head_object", Bucket=bucket, Key=key)
        except (FileNotFoundError, PermissionError):
            pass  # a prefix; what may not be asked about can still be listed
        else:
            yield where, info["ContentLength"], str(info["ETag"]).strip('"')
            return
    any_below = False
    for start in dict.fromkeys(
        (path if slash else f"{path}/", path)
    ):  # a folder, else a prefix of names
        for entry in _s3_pages(fs, start):
            any_below = True
            yield entry
        if any_below:
            return


def _bucket_and_key(path: str) -> tuple[str, str]:
    """Split a path at the end of its bucket; the name of an access point has a slash."""
    parts = path.split("/")
    length = 2 if path.startswith("arn:") else 1
    return "/".join(parts[:length]), "/".join(parts[length:])


def _s3_pages(fs: Any, start: str) -> Iterator[ListedFile]:
    """List page by page; fsspec's ``find`` would hold a dict for each object at once."""
    bucket, prefix = _bucket_and_key(start)
    token: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                etag = item.get("ETag")
                address = f"s3://{bucket}/{item['Key']}"
                yield address, item["Size"], str(etag).strip('"') if etag else None
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _below(fs: Any, start: str) -> Iterator[Mapping[str, Any]]:
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
