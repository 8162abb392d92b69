"""Beginning an output, or going on with one: whose it is, and what is already committed.

A job's *fingerprint* is all that decides its labels: the recipe (configuration without pools,
storage and limits), the SHA-256 of every weight, the manifest, and where the references are. An
output begun with another fingerprint is refused, naming what changed; the shards already in it are
the truth about what is done.
"""

from __future__ import annotations

import io
import json
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow.parquet as pq

from salip_ray.errors import OutputError, ResumeError
from salip_ray.pipeline.plan import Plan, describe_change
from salip_ray.pipeline.store import Store
from salip_ray.rows import SCHEMA_VERSION

RUN = "run.json"
MANIFEST = "manifest.parquet"
SHARDS, MASKS, STATS = "shards", "masks", "stats"

_SHARD_NAME = re.compile(r"part-(\d{5,})\.parquet")
_PACKAGES = (
    "salip-ray",
    "ray",
    "torch",
    "torchvision",
    "segment-anything",
    "open_clip_torch",
    "numpy",
    "pyarrow",
    "pillow",
    "pycocotools",
    "opencv-python-headless",
)


def shard_file(folder: str, shard: int, suffix: str) -> str:
    """``shards/part-00000.parquet`` and the like."""
    return f"{folder}/part-{shard:05d}.{suffix}"


def make_fingerprint(
    recipe: Mapping[str, Any], weights: Mapping[str, str], plan: Plan, references: str | None
) -> dict[str, Any]:
    """All that decides the labels, as JSON-ready data."""
    return {
        "recipe": dict(recipe),
        "weights": dict(weights),
        "manifest": {"sha256": plan.digest, "images": plan.n_images},
        "references": references,
    }


@dataclass(frozen=True)
class Begun:
    """An output that is ours to write: which shards it has, and what is worth saying about it."""

    committed: frozenset[int]
    notes: tuple[str, ...] = ()


def begin(store: Store, plan: Plan, fingerprint: Mapping[str, Any]) -> Begun:
    """Claim an empty output, or check that a begun one is of this very job.

    Raises:
        OutputError: the location holds something that is not ours.
        ResumeError: it was begun by a job with another fingerprint; the message says what changed.
    """
    begun = _read_run(store)
    notes: list[str] = []
    if begun is None:
        run = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": dict(fingerprint),
            "versions": _versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # First of all files: whatever a kill leaves behind, this output is known to be ours.
        store.write(RUN, _json(run))
    else:
        _check_same(store, plan, begun["fingerprint"], fingerprint)
        notes.extend(_version_notes(begun.get("versions", {})))
    for folder in (SHARDS, MASKS, STATS):
        store.sweep(folder)
    if MANIFEST not in store.names():
        store.write(MANIFEST, manifest_bytes(plan))
    return Begun(committed_shards(store), tuple(notes))


def committed_shards(store: Store) -> frozenset[int]:
    """The shards whose Parquet file, written last, is there."""
    matches = (_SHARD_NAME.fullmatch(name) for name in store.names(SHARDS))
    return frozenset(int(match.group(1)) for match in matches if match)


def record_devices(store: Store, devices: Mapping[str, Any]) -> None:
    """Add to ``run.json`` what the job runs on; a resume on another machine adds its own."""
    run = _read_run(store)
    assert run is not None, "devices are recorded after the output was begun"
    known = run.setdefault("devices", [])
    if dict(devices) not in known:
        known.append(dict(devices))
        store.write(RUN, _json(run))


def manifest_bytes(plan: Plan) -> bytes:
    """The frozen manifest as Parquet; a row group is a shard's worth of rows, or a few."""
    buffer = io.BytesIO()
    pq.write_table(plan.manifest, buffer, compression="zstd", row_group_size=65_536)
    return buffer.getvalue()


def _read_run(store: Store) -> dict[str, Any] | None:
    data = store.read(RUN)
    if data is None:
        if found := store.names():
            raise OutputError(
                f"output {store} is not empty and was not made by salip_ray "
                f"(it holds {found[0]!r}, but no {RUN}): give an empty or new location"
            )
        return None
    try:
        run = json.loads(data)
        written = run["schema_version"]
        run["fingerprint"]["manifest"]["sha256"]
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{store}/{RUN} is not a file of salip_ray") from None
    if written != SCHEMA_VERSION:
        raise ResumeError(
            f"output {store} has schema_version {written}, this version writes {SCHEMA_VERSION}"
        )
    return dict(run)


def _check_same(
    store: Store, plan: Plan, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    # Through JSON, so that tuples and numbers compare as they were written.
    now = json.loads(_json(now))
    changes = list(_differences(before, now))
    if before["manifest"] != now["manifest"]:
        changes = [change for change in changes if not change.startswith("manifest.")]
        frozen = store.read(MANIFEST)
        said = describe_change(pq.read_table(io.BytesIO(frozen)), plan.manifest) if frozen else ""
        changes.insert(0, f"the input ({said or 'its images'})")
    if changes:
        shown = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" * (len(changes) > 5))
        raise ResumeError(
            f"output {store} was begun by another job. Changed: {shown}. "
            "Use the same command to go on, or another output"
        )


def _differences(before: Any, now: Any, at: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            place = key if at in {"", "recipe"} else f"{at}.{key}"
            yield from _differences(before.get(key), now.get(key), place)
    elif before != now:
        yield f"{at} was {_short(before)}, is {_short(now)}"


def _short(value: Any, limit: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue  # a checkout on the path, or a build that carries another name
    return versions


def _version_notes(before: Mapping[str, str]) -> Iterator[str]:
    now = _versions()
    changed = [
        f"{name} {before[name]} -> {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
    if changed:
        yield (
            f"this output was begun with other versions ({', '.join(changed)}): "
            "the remaining rows may differ in their last bits"
        )


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
