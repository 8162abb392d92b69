"""Beginning an output, or going on with one: whose it is, and what is already committed.

A job's *fingerprint* is all that decides its labels: the recipe (configuration without pools,
storage and limits), the SHA-256 of every weight, the manifest, and where the references are. An
output begun with another fingerprint is refused, naming what changed; the shards already in it are
the truth about what is done, and its frozen manifest about what there is to do.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.errors import OutputError, ResumeError
from salip_ray.output.growth import Change, compare, extend_manifest
from salip_ray.output.layout import LEASE, MANIFEST, MASKS, RUN, SHARDS, STATS, shard_numbers
from salip_ray.output.manifest import Manifest, manifest_digest, with_frozen_shards
from salip_ray.output.store import Store
from salip_ray.schema import SCHEMA_VERSION

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


def make_fingerprint(
    recipe: Mapping[str, Any], weights: Mapping[str, str], plan: Manifest, references: str | None
) -> dict[str, Any]:
    """All that decides the labels, as JSON-ready data."""
    return {
        "recipe": dict(recipe),
        "weights": dict(weights),
        "manifest": {"sha256": plan.digest, "images": plan.n_images},
        "references": references,
    }


@dataclass(frozen=True)
class ClaimedJob:
    """An output that this job may write.

    Attributes:
        manifest: the images of the job, in the shards of the frozen manifest.
        committed: numbers of the committed shards.
        notes: lines to show to the user.
    """

    manifest: Manifest
    committed: frozenset[int]
    notes: tuple[str, ...] = ()


def claim_or_resume_job(
    store: Store, plan: Manifest, fingerprint: Mapping[str, Any], *, extend: bool = False
) -> ClaimedJob:
    """Claim an empty output, or check that a begun one is of this very job.

    Args:
        store: the output.
        plan: what the input holds now.
        fingerprint: of :func:`make_fingerprint`.
        extend: take up images that the input has gained since, in new shards.

    Raises:
        OutputError: the location holds something that is not ours.
        ResumeError: it was begun by a job with another fingerprint, or with its manifest in another
            place, or has shards and no manifest; the message says what changed.
    """
    begun = read_run(store)
    notes: list[str] = []
    if begun is None:
        run = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": dict(fingerprint),
            "versions": _versions(),
            "created": _now(),
            "manifest_elsewhere": store.is_elsewhere(MANIFEST),
        }
        # First of all files: whatever a kill leaves behind, this output is known to be ours.
        store.write(RUN, _json(run))
    else:
        require_manifest_location(store, begun)
        plan = _go_on(store, plan, begun, fingerprint, extend=extend)
        notes.extend(_version_notes(begun.get("versions", {})))
    for folder in ("", SHARDS, MASKS, STATS):
        store.sweep(folder)
    if store.read(MANIFEST) is None:
        store.write(MANIFEST, manifest_bytes(plan))
    return ClaimedJob(plan, committed_shards(store), tuple(notes))


def require_manifest_location(store: Store, run: Mapping[str, Any]) -> None:
    """Raise ResumeError where the manifest is not looked for where the output's is.

    A job that was begun with ``--manifest``, to keep names out of its output, must not write them
    there because it was gone on with without.
    """
    elsewhere = bool(run.get("manifest_elsewhere"))
    if elsewhere and not store.is_elsewhere(MANIFEST):
        raise ResumeError(
            f"output {store} was begun with its manifest kept elsewhere: "
            "give that file again with --manifest FILE"
        )
    if store.is_elsewhere(MANIFEST) and not elsewhere:
        raise ResumeError(f"output {store} holds its manifest itself: leave --manifest out")


def read_manifest(store: Store) -> pa.Table | None:
    """The manifest of an output, or None where it was killed before it had one."""
    data = store.read(MANIFEST)
    return None if data is None else pq.read_table(io.BytesIO(data))


def committed_shards(store: Store) -> frozenset[int]:
    """The shards whose Parquet file, written last, is there."""
    return shard_numbers(store.names(SHARDS))


def record_devices(store: Store, devices: Mapping[str, Any]) -> None:
    """Add to ``run.json`` what the job runs on; a resume on another machine adds its own."""
    run = read_run(store)
    assert run is not None, "devices are recorded after the output was begun"
    known = run.setdefault("devices", [])
    if dict(devices) not in known:
        known.append(dict(devices))
        store.write(RUN, _json(run))


def manifest_bytes(plan: Manifest) -> bytes:
    """The frozen manifest as Parquet; a row group is a shard's worth of rows, or a few."""
    buffer = io.BytesIO()
    pq.write_table(plan.manifest, buffer, compression="zstd", row_group_size=65_536)
    return buffer.getvalue()


def read_run(store: Store) -> dict[str, Any] | None:
    """The content of ``run.json``, or None where the output is empty.

    Raises:
        OutputError: the location holds something that is not ours.
        ResumeError: it is of another schema version.
    """
    data = store.read(RUN)
    if data is None:
        if found := [name for name in store.names() if name != LEASE]:
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
        older = isinstance(written, int) and written < SCHEMA_VERSION
        age = "an older" if older else "a newer"
        raise ResumeError(
            f"output {store} has schema_version {written}, this version writes {SCHEMA_VERSION}: "
            f"go on with {age} salip-ray ({_made_by(run)}), or give another output"
        )
    return dict(run)


def _made_by(run: Mapping[str, Any]) -> str:
    versions = run.get("versions")
    version_then = versions.get("salip-ray") if isinstance(versions, Mapping) else None
    return f"it was begun with {version_then or 'an unknown version'}"


def _go_on(
    store: Store,
    plan: Manifest,
    run: dict[str, Any],
    fingerprint: Mapping[str, Any],
    *,
    extend: bool,
) -> Manifest:
    """The plan to go on with.

    The manifest is the truth about the input, and its one write is what extends it; what
    ``run.json`` says of it is a record that is mended here where a kill came between the two.
    """
    # Through JSON, so that tuples and numbers compare as they were written.
    now = json.loads(_json(fingerprint))
    before = run["fingerprint"]
    changes = list(differences(_but_manifest(before), _but_manifest(now)))
    frozen = read_manifest(store)
    if frozen is None and (committed := committed_shards(store)):
        # Cut anew, an input that was extended gives the same images other shards.
        raise ResumeError(
            f"output {store} has {len(committed):,} committed shards, but {store.where(MANIFEST)} "
            "is not there, which says what is in them: put it back, name it by --manifest, or give "
            "another output"
        )
    change: Change | None = None
    if frozen is None:
        if before["manifest"] != now["manifest"]:
            changes.insert(0, "the input")
    elif (
        not frozen.equals(plan.manifest)
        and manifest_digest(frozen, plan.rows_per_shard) != plan.digest
    ):
        change = compare(frozen, plan.manifest)
    grown = change is not None and change.is_growth and not changes
    if change is not None and not (extend and grown):
        changes.insert(0, f"the input ({change})")
    if changes:
        raise ResumeError(_refusal(store, changes, grown=grown))
    if frozen is not None and change is None:
        plan = with_frozen_shards(frozen, plan)
    elif frozen is not None:
        plan = extend_manifest(frozen, plan)
        store.write(MANIFEST, manifest_bytes(plan))
        run.setdefault("extensions", []).append(
            {"images": plan.n_images - frozen.num_rows, "at": _now()}
        )
    if before["manifest"] != now["manifest"]:
        before["manifest"] = now["manifest"]
        store.write(RUN, _json(run))
    return plan


def _but_manifest(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fingerprint.items() if key != "manifest"}


def _refusal(store: Store, changes: list[str], *, grown: bool) -> str:
    shown = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" * (len(changes) > 5))
    way = (
        "add --extend to label what is new into new shards"
        if grown
        else "use the command it was begun with to go on"
    )
    return (
        f"output {store} was begun by another job. Changed: {shown}. "
        f"Two ways on: {way}, or give another output"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def differences(before: Any, now: Any, at: str = "") -> Iterator[str]:
    """What changed between two fingerprints, field by field, in words."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            place = key if at in {"", "recipe"} else f"{at}.{key}"
            yield from differences(before.get(key), now.get(key), place)
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
