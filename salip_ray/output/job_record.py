"""The record of a labelling job: ``run.json``, the frozen manifest and the committed shards.

A job's *fingerprint* is all that decides its labels: the recipe (configuration without pools,
storage and limits), the SHA-256 of every weight, the manifest, and the location of the references.
A job resumes an output only if its fingerprint is that of the output. The Parquet files of the
shards decide what is done, and the frozen manifest what there is to do.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.errors import OutputError, ResumeError
from salip_ray.output.claim import Record, as_json, read_record, refusal
from salip_ray.output.growth import Change, compare, extend_manifest
from salip_ray.output.layout import MANIFEST, RUN, SHARDS, shard_numbers
from salip_ray.output.manifest import Manifest, manifest_digest, with_frozen_shards
from salip_ray.output.seal import open_seal
from salip_ray.output.store import Store
from salip_ray.schema import SCHEMA_VERSION
from salip_ray.wording import counted

_KIND, _KEY = "job", "fingerprint"
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
    recipe: Mapping[str, Any],
    weights: Mapping[str, str],
    manifest: Manifest,
    references: str | None,
    selection: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all that decides the labels of a job, as JSON-ready data.

    Args:
        recipe: the configuration without pools, storage and limits.
        weights: SHA-256 of each file of weights by its role.
        manifest: the images of the job.
        references: public URI of the reference masks, if the job uses any.
        selection: which files of the input are taken, if not all of them.
    """
    chosen = {"selection": dict(selection)} if selection else {}
    return {
        "recipe": dict(recipe),
        "weights": dict(weights),
        "manifest": {"sha256": manifest.digest, "images": manifest.n_images},
        "references": references,
        **chosen,
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
    store: Store, manifest: Manifest, fingerprint: Mapping[str, Any], *, extend: bool = False
) -> ClaimedJob:
    """Claim an empty output, or check that an existing one is of this job.

    Args:
        store: the output.
        manifest: the images that the input holds now.
        fingerprint: from :func:`make_fingerprint`.
        extend: add images that are new in the input, in new shards.

    Raises:
        OutputError: the location holds files of something else.
        ResumeError: the output was created by a job with another fingerprint or with its manifest
            in another location, or has shards but no manifest; the message lists the changes.
    """
    run = read_run(store)
    notes: list[str] = []
    if run is None:
        record = Record(
            _KIND,
            RUN,
            fingerprint,
            _KEY,
            before={"schema_version": SCHEMA_VERSION},
            after={
                "versions": _versions(),
                "created": _now(),
                "manifest_elsewhere": store.is_elsewhere(MANIFEST),
            },
        )
        store.write(RUN, as_json(record.content()))
    else:
        require_manifest_location(store, run)
        manifest = _resume(store, manifest, run, fingerprint, extend=extend)
        notes.extend(_version_notes(run.get("versions", {})))
    if store.read(MANIFEST) is None:
        store.write(MANIFEST, manifest_bytes(manifest))
    return ClaimedJob(manifest, committed_shards(store), tuple(notes))


def require_manifest_location(store: Store, run: Mapping[str, Any]) -> None:
    """Check that the manifest is looked for where the output's manifest is.

    A job that was created with ``--manifest``, to keep names out of its output, must not write them
    into the output when it is resumed without that option.

    Raises:
        ResumeError: --manifest disagrees with how the job was created.
    """
    elsewhere = bool(run.get("manifest_elsewhere"))
    if elsewhere and not store.is_elsewhere(MANIFEST):
        raise ResumeError(
            f"output {store} was created with its manifest stored elsewhere: "
            "give that file again with --manifest FILE"
        )
    if store.is_elsewhere(MANIFEST) and not elsewhere:
        raise ResumeError(f"output {store} holds its manifest itself: leave --manifest out")


def read_manifest(store: Store) -> pa.Table | None:
    """Return the frozen manifest of an output, or None if the job was killed before it had one."""
    data = store.read(MANIFEST)
    return None if data is None else pq.read_table(io.BytesIO(data))


def committed_shards(store: Store) -> frozenset[int]:
    """Return the numbers of the shards whose Parquet file, which is written last, exists.

    A folder or an empty file of that name commits nothing.
    """
    return shard_numbers(name for name, size in store.sizes(SHARDS).items() if size)


def record_devices(store: Store, devices: Mapping[str, Any]) -> None:
    """Open the seal, and add the devices of this run to ``run.json`` unless they are there."""
    open_seal(store)
    run = read_run(store)
    assert run is not None, "devices are recorded after the output was claimed"
    known = run.setdefault("devices", [])
    if dict(devices) not in known:
        known.append(dict(devices))
        store.write(RUN, as_json(run))


def record_precision(store: Store, precision: str) -> None:
    """Record the resolved ``run.precision`` of a job in ``run.json``.

    Outputs of earlier versions do not have the field; their devices show what ``auto`` was.

    Args:
        store: the output, already claimed.
        precision: ``exact`` or ``fast``.

    Raises:
        ResumeError: shards were committed with another precision.
    """
    run = read_run(store)
    assert run is not None, "the precision is recorded after the output was claimed"
    before = run.get("precision") or _precision_of_devices(run)
    if before not in (None, precision) and committed_shards(store):
        raise ResumeError(
            f"output {store} was labelled with precision {before}, and run.precision resolves to "
            f"{precision} on these machines (fast on GPUs, exact on CPUs). Resume on machines like "
            "those of the first run, or give another output"
        )
    if run.get("precision") != precision:
        store.write(RUN, as_json({**run, "precision": precision}))


def _precision_of_devices(run: Mapping[str, Any]) -> str | None:
    """Return what ``auto`` was in every run of a job, or None if that is not certain."""
    if run["fingerprint"].get("recipe", {}).get("run", {}).get("precision") != "auto":
        return None
    on_gpu = {bool(devices.get("gpus")) for devices in run.get("devices", ())}
    if len(on_gpu) != 1:
        return None
    return "fast" if on_gpu.pop() else "exact"


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the frozen manifest as Parquet; the same manifest gives the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(manifest.frozen, buffer, compression="zstd", row_group_size=65_536)
    return buffer.getvalue()


def read_run(store: Store) -> dict[str, Any] | None:
    """Return the content of ``run.json``, or None if the output is empty.

    Raises:
        OutputError: the location holds files of something else, or ``run.json`` is damaged.
        ResumeError: ``run.json`` has another schema version.
    """
    run = read_record(store, _KIND, RUN, _KEY)
    if run is None:
        return None
    try:
        written = run["schema_version"]
        run[_KEY]["manifest"]["sha256"]
    except (KeyError, TypeError):
        raise OutputError(
            f"{store.path_of(RUN)} is not the record of a {_KIND} of salip-ray"
        ) from None
    if written != SCHEMA_VERSION:
        older = isinstance(written, int) and written < SCHEMA_VERSION
        age = "an older" if older else "a newer"
        raise ResumeError(
            f"output {store} has schema_version {written}, this version writes {SCHEMA_VERSION}: "
            f"resume with {age} salip-ray ({_made_by(run)}), or give another output"
        )
    return run


def _made_by(run: Mapping[str, Any]) -> str:
    versions = run.get("versions")
    version_then = versions.get("salip-ray") if isinstance(versions, Mapping) else None
    return f"it was created with {version_then or 'an unknown version'}"


def _resume(
    store: Store,
    manifest: Manifest,
    run: dict[str, Any],
    fingerprint: Mapping[str, Any],
    *,
    extend: bool,
) -> Manifest:
    """Return the manifest of a resumed job; extend the frozen one if that was asked for.

    The frozen manifest decides what there is to do, and its one write extends it. ``run.json``
    repeats its digest, which is repaired here if a kill came between the two writes.
    """
    before, now = run[_KEY], fingerprint
    record = Record(_KIND, RUN, _without_manifest(now), _KEY)
    changes = record.changes({_KEY: _without_manifest(before)})
    frozen = read_manifest(store)
    if frozen is None and (committed := committed_shards(store)):
        # A new manifest could put the images of an extended input into other shards.
        shards = counted(len(committed), "committed shard")
        raise ResumeError(
            f"output {store} has {shards}, but {store.path_of(MANIFEST)}, which lists their "
            "images, does not exist: restore it, name it with --manifest, or give another output"
        )
    change = _input_change(frozen, manifest)
    if frozen is None and before["manifest"] != now["manifest"]:
        changes.insert(0, "the input")
    grown = change is not None and change.is_growth and not changes
    if change is not None and not (extend and grown):
        changes.insert(0, f"the input ({change})")
    if changes:
        extending = "add --extend to label the new images in new shards"
        advice = (extending,) if grown else ()
        raise ResumeError(refusal(store, _KIND, changes, *advice))
    if frozen is not None and change is None:
        manifest = with_frozen_shards(frozen, manifest)
    elif frozen is not None:
        manifest = extend_manifest(frozen, manifest)
        open_seal(store)
        store.write(MANIFEST, manifest_bytes(manifest))
        run.setdefault("extensions", []).append(
            {"images": manifest.n_images - frozen.num_rows, "at": _now()}
        )
    if before["manifest"] != now["manifest"]:
        open_seal(store)
        before["manifest"] = now["manifest"]
        store.write(RUN, as_json(run))
    return manifest


def _input_change(frozen: pa.Table | None, manifest: Manifest) -> Change | None:
    """Return how the input differs from the frozen manifest, or None if it is the same."""
    if frozen is None or frozen.equals(manifest.frozen):
        return None
    if manifest_digest(frozen, manifest.rows_per_shard) == manifest.digest:
        return None
    return compare(frozen, manifest.frozen)


def _without_manifest(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fingerprint.items() if key != "manifest"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue  # a checkout on the path, or a build with another name
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
            f"this output was created with other versions ({', '.join(changed)}): "
            "the remaining rows may differ in their last bits"
        )
