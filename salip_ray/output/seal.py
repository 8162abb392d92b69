"""The seal of a finished output: checksums of the files that no other checksum covers.

The statistics of a shard hold the checksums of its Parquet and tar files. The seal holds those of
all statistics, of ``run.json``, the manifest and the summary. So the SHA-256 of the seal, the *root
digest*, covers every byte of the labels. Whoever stores it elsewhere can tell later that nothing
was altered (``salip-ray verify --expect DIGEST``).

A run that is about to write opens the seal first. An output whose seal is open was not finished, or
not by the run that opened it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from salip_ray.output.commit import describe
from salip_ray.output.layout import MANIFEST, RUN, SEAL, STATS, SUMMARY, shard_file
from salip_ray.output.store import Store

_OPEN = b'{"sealed": false}\n'
_READ_TOGETHER = 1024  # statistics in memory at once


def write_seal(store: Store, n_shards: int) -> None:
    """Seal a finished output.

    Args:
        store: the output, with all shards committed and its summary written.
        n_shards: number of shards.

    Raises:
        StoreError: a file cannot be read or written.
    """
    files: dict[str, dict[str, Any]] = {}
    for name in (RUN, MANIFEST, SUMMARY):
        if (data := store.read(name)) is not None:
            files[name] = describe(data)
    for start in range(0, n_shards, _READ_TOGETHER):
        shards = range(start, min(n_shards, start + _READ_TOGETHER))
        contents = store.read_all([shard_file(STATS, shard) for shard in shards])
        files |= {name: describe(data) for name, data in sorted(contents.items())}
    seal = {"sealed": True, "files": files}
    store.write(SEAL, json.dumps(seal, indent=1).encode() + b"\n")


def open_seal(store: Store) -> None:
    """Announce that files under the seal are about to change.

    Raises:
        StoreError: the output cannot be read or written.
    """
    if store.read(SEAL) not in (None, _OPEN):
        store.write(SEAL, _OPEN)


def read_seal(data: bytes | None) -> Mapping[str, Mapping[str, Any]] | None:
    """Return size and SHA-256 of each sealed file, or None if the seal is missing or open.

    Args:
        data: content of the seal, None if there is none.

    Raises:
        ValueError: it is not a seal.
    """
    if data is None:
        return None
    try:
        seal = json.loads(data)
        if not seal["sealed"]:
            return None
        return {
            str(name): {"bytes": int(item["bytes"]), "sha256": str(item["sha256"])}
            for name, item in seal["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("is not a seal") from None


def is_sealed(store: Store) -> bool:
    """Return True if a run has finished the output and none has opened it since.

    A damaged seal counts as one, so that nothing overwrites the evidence.
    """
    try:
        return read_seal(store.read(SEAL)) is not None
    except ValueError:
        return True


def root_digest(data: bytes) -> str:
    """Return the SHA-256 of a seal in hex."""
    return hashlib.sha256(data).hexdigest()
