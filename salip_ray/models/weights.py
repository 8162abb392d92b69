"""Weights files: fetched once per node, verified, and named by their content.

Neither this module nor the loaders ever unpickle code: checkpoints load with ``weights_only=True``
or as safetensors.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from salip_ray.errors import MissingDependencyError, WeightsError
from salip_ray.sources.locations import filesystem, public_uri
from salip_ray.sources.stores import describe_error, underlying_error, with_retries
from salip_ray.wording import one_line

_CHUNK = 8 * 2**20
_SETTLED_SECONDS = 2.0  # more than a tick of any file system's clock


def cache_dir() -> Path:
    """Return the folder of fetched weights: ``$SALIP_RAY_CACHE``, else ``~/.cache/salip_ray``."""
    configured = os.environ.get("SALIP_RAY_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "salip_ray"


def fetch(
    uri: str, *, sha256: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> Path:
    """Return a local file with the content of ``uri``.

    A local file is not copied. Anything else (``s3://``, ``https://``, any fsspec scheme) is copied
    into the cache, once per node: other processes wait for the one that fetches, and never see an
    incomplete file.

    Args:
        uri: path or URI of a weights file.
        sha256: what the content must hash to, in hex.
        storage_options: fsspec's, for a URI.

    Raises:
        WeightsError: the file does not exist or cannot be read, or its content is another.
    """
    if "://" not in uri or uri.startswith("file://"):
        path = Path(uri.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise WeightsError(f"weights file {path} does not exist")
        verify(path, sha256, uri)
        return path
    path = _cached_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.is_file() and (sha256 is None or digest(path) == sha256.lower()):
            return path
        _download(uri, path, sha256, storage_options)
    return path


def cached(uri: str) -> Path | None:
    """Return the cached file of a URI, or None if this node has none."""
    path = _cached_path(uri)
    return path if path.is_file() else None


def _cached_path(uri: str) -> Path:
    name = re.sub(r"[^\w.-]", "_", uri.partition("?")[0].rstrip("/").rpartition("/")[2])
    return cache_dir() / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}"


def digest(path: Path) -> str:
    """Return the sha256 of a file in hex, from the cache if the file was not touched since.

    The time of the last change of the inode tells: unlike the modification time, no program can set
    it back. A file that changed a moment ago is not remembered, for it may change within the same
    tick of the clock.

    Raises:
        WeightsError: the file changes while it is read.
    """
    path = path.resolve()
    before = path.stat()
    key = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    record = cache_dir() / "digests" / f"{key}.json"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["file"] == _identity(path, before):
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if _identity(path, after) != _identity(path, before):
        raise WeightsError(f"{path} is being written: wait until it is complete")
    if time.time() - before.st_ctime > _SETTLED_SECONDS:
        _remember(record, {"file": _identity(path, before), "sha256": sha256})
    return sha256


def _identity(path: Path, status: os.stat_result) -> list[str | int]:
    times = status.st_mtime_ns, status.st_ctime_ns
    return [str(path), status.st_dev, status.st_ino, status.st_size, *times]


#: Files that are fetched from the hub: the others of a repository (examples, pickles) are not used.
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_HUB = "hf-hub:"


def is_folder(uri: str) -> bool:
    """Return True if weights are a local folder, or a repository of the Hugging Face hub."""
    return uri.startswith(_HUB) or ("://" not in uri and Path(uri).expanduser().is_dir())


def fetch_folder(uri: str, *, sha256: str | None = None) -> Path:
    """Return the local folder of a model: itself, or the cached files of ``hf-hub:owner/name``.

    Raises:
        WeightsError: the repository cannot be fetched, or :func:`digest_folder` is another.
    """
    if uri.startswith(_HUB):
        from huggingface_hub import snapshot_download

        name = uri.removeprefix(_HUB)
        try:
            folder = Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES)))
        except Exception as error:
            raise WeightsError(
                f"weights {uri} cannot be fetched ({one_line(error, 200)}): fetch them on a "
                "machine with network access and set HF_HOME to that cache, or give a local folder"
            ) from error
    else:
        folder = Path(uri).expanduser()
    if sha256 is not None and (actual := digest_folder(uri, folder)) != sha256.lower():
        raise WeightsError(f"{uri}: its sha256 is {actual}, expected {sha256.lower()}")
    return folder


def digest_folder(uri: str, folder: Path) -> str:
    """Return a sha256 of the names and contents of the files in a folder, in hex.

    Hidden files do not count. The cache of a repository of the hub may hold further files, which do
    not count either.

    Args:
        uri: as in the configuration.
        folder: from :func:`fetch_folder`.

    Raises:
        WeightsError: the folder holds no file.
    """
    if uri.startswith(_HUB):
        files = {file for pattern in _MODEL_FILES for file in folder.glob(pattern)}
    else:
        files = {file for file in folder.rglob("[!.]*") if file.is_file()}
    if not files:
        raise WeightsError(f"the folder {folder} of weights holds no file")
    names = sorted((file.relative_to(folder).as_posix(), file) for file in files)
    lines = "".join(f"{digest(file)}  {name}\n" for name, file in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def verify(path: Path, sha256: str | None, source: str) -> None:
    """Raise WeightsError unless the file hashes to ``sha256`` (None: any content will do)."""
    if sha256 is not None and (actual := digest(path)) != sha256.lower():
        raise WeightsError(f"{source}: its sha256 is {actual}, expected {sha256.lower()}")


@contextlib.contextmanager
def unchanged(path: Path, sha256: str | None) -> Iterator[None]:
    """Refuse a weights file that is altered while the block loads it.

    The file that was hashed is the file that was loaded only if nothing wrote to it from before the
    hash until after the load.

    Args:
        path: of the file.
        sha256: what the content must hash to, in hex; None checks nothing.

    Raises:
        WeightsError: the file has another content before or after the block, or was written to.
    """
    if sha256 is None:
        yield
        return
    path = path.resolve()
    before = _identity(path, path.stat())
    verify(path, sha256, str(path))
    problem: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001  (a half-written file fails in many ways)
        problem = error
    try:
        same = _identity(path, path.stat()) == before
    except OSError:
        same = False
    if not same:
        raise WeightsError(
            f"{path} was altered while it was loaded: wait until it is complete, then run the "
            "same command again"
        ) from problem
    if problem is not None:
        raise problem
    verify(path, sha256, str(path))  # two changes within one tick of the clock have the same time


def _download(
    uri: str, path: Path, sha256: str | None, storage_options: Mapping[str, Any] | None
) -> None:
    shown = public_uri(uri.partition("?")[0])  # what follows may be a signature
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # by a process that was killed
        left.unlink(missing_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    partial = Path(name)
    try:
        fs, remote_path = filesystem(uri, storage_options)
        actual = with_retries(lambda: _copy(fs, remote_path, partial))
        if sha256 is not None and actual != sha256.lower():
            raise WeightsError(f"{shown}: its sha256 is {actual}, expected {sha256.lower()}")
        partial.replace(path)
    except (WeightsError, MissingDependencyError):
        raise
    except FileNotFoundError:
        raise WeightsError(f"weights {shown} cannot be fetched: there is no such file") from None
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
        problem = describe_error(error, uri).replace(public_uri(uri), shown)
        raise WeightsError(
            f"weights {shown} cannot be fetched: {problem}. Without network access, download the "
            "file elsewhere and set its path instead (salip-ray weights fetch --preset does this)"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _copy(fs: Any, remote_path: str, target: Path) -> str:
    """Copy a file of a filesystem, whole; returns the sha256 of what arrived, in hex."""
    hasher = hashlib.sha256()
    arrived = 0  # bytes
    try:
        with fs.open(remote_path, "rb") as source, target.open("wb") as file:
            size = getattr(source, "size", None)
            known = isinstance(size, int)  # not every store says it
            while chunk := source.read(_CHUNK):
                hasher.update(chunk)
                file.write(chunk)
                arrived += len(chunk)
                if known and len(chunk) < _CHUNK:
                    break  # the end, or an answer that was cut short
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
        raise underlying_error(error) from None
    if known and arrived != size:
        raise OSError(f"{arrived:,} of its {size:,} bytes arrived")
    return hasher.hexdigest()


def _remember(record: Path, known: Mapping[str, Any]) -> None:
    """Write atomically; a cache that cannot be written only costs hashing again."""
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        partial = record.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(known), encoding="utf-8")
        partial.replace(record)
    except OSError:
        pass
