"""List reference masks: a folder of masks, or an index of images and masks.

Names are compared in Unicode's composed form (NFC): a name from a Mac is decomposed.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.csv
from fsspec.asyn import AsyncFileSystem

from salip_ray.errors import InputError
from salip_ray.sources.decode import IMAGE_SUFFIXES
from salip_ray.sources.formats.names import stem, suffix
from salip_ray.sources.local_files import NotRegularError, open_regular
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri
from salip_ray.sources.stores import describe_error, with_retries

SliceKey = tuple[str, int]  #: stem of the volume's file, index of the slice
_INDEX = "index.csv"
_THREADS, _CHUNK = 8, 1 << 20
_OF_SLICE = re.compile(r"(?:(?P<stem>.+)[-_])?(?P<index>\d+)")


def image_key(name: str) -> str:
    """Return the stem by which an image and its mask are matched."""
    return unicodedata.normalize("NFC", stem(name))


def whole_key(uri: str) -> str:
    """Return the public URI by which an index lists an image."""
    return unicodedata.normalize("NFC", public_uri(uri))


def find_masks(
    where: str, storage_options: Mapping[str, Any] | None
) -> tuple[dict[str, str], dict[SliceKey, str]]:
    """Return the masks of an index or a folder by image key, and those of single slices.

    Raises:
        InputError: nothing is there; the index lacks a column, or two masks have one stem.
    """
    fs, path = filesystem(where, storage_options)
    if suffix(where) == ".csv":
        return _read_index(fs, path, where), {}
    if fs.exists(join(path, _INDEX)):
        return _read_index(fs, join(path, _INDEX), join(where, _INDEX)), {}
    return _list_folder(fs, path, where)


def _list_folder(fs: Any, path: str, where: str) -> tuple[dict[str, str], dict[SliceKey, str]]:
    """Return the masks of a folder by stem, and those of single slices by stem and index."""
    shown = public_uri(where)
    if not fs.isdir(path):
        problem = "is neither a folder nor an index.csv" if fs.exists(path) else "does not exist"
        raise InputError(f"reference {shown} {problem}")
    masks: dict[str, str] = {}
    slices: dict[SliceKey, str] = {}
    numbered: set[str] = set()  # 007.png of one volume is not that of another
    prefix = f"{where.partition('://')[0]}://" if is_remote(where) else ""
    for name in sorted(fs.find(path)):
        hidden = posixpath.basename(name).startswith(".")
        if hidden or suffix(name) not in IMAGE_SUFFIXES:
            continue
        uri = f"{prefix}{name}"
        if key := slice_key(name[len(path) :]):
            slices[key] = uri
        other = masks.setdefault(image_key(name), uri)
        if other != uri and key and image_key(name).isdigit():
            numbered.add(image_key(name))
        elif other != uri:
            raise InputError(
                f"reference {shown} has two masks for {image_key(name)!r}: "
                f"{public_uri(other)}, {public_uri(uri)}"
            )
    if not masks:
        raise InputError(f"no mask found in reference {shown}")
    return {name: uri for name, uri in masks.items() if name not in numbered}, slices


def hash_files(uris: Iterable[str], storage_options: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the SHA-256 of each file; that of nothing for one that cannot be opened.

    Files are streamed, those of a store a few at a time.
    """
    names = sorted(uris)
    # Members of an archive share a file, FTP a connection.
    together = names and isinstance(filesystem(names[0], storage_options)[0], AsyncFileSystem)
    with ThreadPoolExecutor(_THREADS if together else 1) as pool:
        digests = pool.map(
            lambda uri: with_retries(lambda: _hash_file(uri, storage_options)), names
        )
        return dict(zip(names, digests, strict=True))


def _hash_file(uri: str, storage_options: Mapping[str, Any] | None) -> str:
    digest = hashlib.sha256()
    fs, path = filesystem(uri, storage_options)
    try:
        with fs.open(path, "rb") if is_remote(uri) else open_regular(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except (FileNotFoundError, PermissionError, NotRegularError):
        return hashlib.sha256().hexdigest()  # its image becomes an error row
    return digest.hexdigest()


def slice_key(name: str) -> SliceKey | None:
    """Return the slice that a file may be the mask of, by its name and folder."""
    match = _OF_SLICE.fullmatch(image_key(name))
    folder = unicodedata.normalize("NFC", posixpath.basename(posixpath.dirname(name)))
    volume = match and (match["stem"] or folder)
    return (volume, int(match["index"])) if match and volume else None


def _read_index(fs: Any, path: str, where: str) -> dict[str, str]:
    shown = public_uri(where)
    text = pa.csv.ConvertOptions(column_types={"image": pa.string(), "mask": pa.string()})
    try:
        with fs.open(path, "rb") as file:
            table = pa.csv.read_csv(file, convert_options=text)
    except FileNotFoundError:
        raise InputError(f"reference {shown} does not exist") from None
    except pa.ArrowException as error:
        raise InputError(f"reference {shown}: {describe_error(error)}") from None
    if missing := {"image", "mask"} - set(table.column_names):
        raise InputError(
            f"reference {shown} has no column {sorted(missing)[0]!r}; "
            f"its columns are {', '.join(table.column_names)}"
        )
    folder = where.rpartition("/")[0]
    masks: dict[str, str] = {}
    stems: dict[str, set[str]] = {}
    for number, row in enumerate(table.select(["image", "mask"]).to_pylist(), start=1):
        if not row["image"] or not row["mask"]:
            raise InputError(f"reference {shown} has a row without image or mask: row {number}")
        mask = _resolve(row["mask"], folder, "masks")
        image = _resolve(row["image"], folder, "images")
        masks[whole_key(image)] = mask
        stems.setdefault(image_key(image), set()).add(mask)
    # If the images were moved, a stem that means one mask alone still finds it.
    unique = {name: uris.pop() for name, uris in stems.items() if len(uris) == 1}
    return {**unique, **masks}


def _resolve(name: str, folder: str, sibling: str) -> str:
    if is_remote(name) or name.startswith(("/", "~")):
        return normalise(name)
    if name.startswith(f"{sibling}/") or "/" in name:
        return normalise(join(folder, name))
    return normalise(join(folder, sibling, name))
