"""The file ``run.json``: read it, and record in it what the runs of a job used."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from salip_ray.errors import OutputError, ResumeError
from salip_ray.output.claim import as_json, read_record
from salip_ray.output.commit import committed_shards
from salip_ray.output.layout import RUN
from salip_ray.output.seal import open_seal
from salip_ray.output.store import Store
from salip_ray.schema import READABLE_VERSIONS, SCHEMA_VERSION
from salip_ray.version import VERSION

KIND = "job"  #: in messages
KEY = "fingerprint"  #: field of ``run.json`` with all that decides the labels
_PACKAGES = (
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


def read_run(store: Store) -> dict[str, Any] | None:
    """Return the content of ``run.json``, or None if there is none.

    Raises:
        OutputError: it is damaged, or of another schema version.
    """
    run = read_record(store, KIND, RUN, KEY)
    if run is None:
        return None
    written = run.get("schema_version")
    if written not in READABLE_VERSIONS:
        readable = " and ".join(map(str, READABLE_VERSIONS))
        older = isinstance(written, int) and written < SCHEMA_VERSION
        age = "an older" if older else "a newer"
        raise OutputError(
            f"output {store} has schema_version {written}, this version reads {readable}: "
            f"use {age} salip-ray ({_made_by(run)}), or give another output"
        )
    return run


def _made_by(run: Mapping[str, Any]) -> str:
    versions = run.get("versions")
    version_then = versions.get("salip-ray") if isinstance(versions, Mapping) else None
    return f"it was created with {version_then or 'an unknown version'}"


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


def now() -> str:
    """Return the time in UTC, for ``run.json``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change labels."""
    # That of the code: the metadata of an editable installation are those of its first day.
    versions = {"python": platform.python_version(), "salip-ray": VERSION}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue  # a build with another name
    return versions


def version_notes(before: Mapping[str, str]) -> Iterator[str]:
    """Yield a line if packages have other versions than when the output was created."""
    now = package_versions()
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
