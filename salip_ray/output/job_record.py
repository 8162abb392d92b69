"""The record of a labelling job: ``run.json``, the frozen manifest and the committed shards.

A job's *fingerprint* is all that decides its labels: the recipe (configuration without pools,
storage and limits), the SHA-256 of every weight, the code of models of other packages, the
manifest, and the location of the references. A job resumes an output only if its fingerprint is
that of the output. The Parquet files of the shards decide what is done, and the frozen manifest
what there is to do.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.errors import OutputError, ResumeError
from salip_ray.output.claim import Record, as_json, refusal, require_empty
from salip_ray.output.commit import committed_shards
from salip_ray.output.growth import Change, compare, extend_manifest
from salip_ray.output.layout import MANIFEST, RUN
from salip_ray.output.manifest import Manifest, manifest_digest, with_frozen_shards
from salip_ray.output.run_record import (
    KEY,
    KIND,
    now,
    package_versions,
    read_run,
    version_notes,
)
from salip_ray.output.seal import open_seal
from salip_ray.output.store import Store
from salip_ray.schema import SCHEMA_VERSION
from salip_ray.wording import counted


def make_fingerprint(
    recipe: Mapping[str, Any],
    weights: Mapping[str, str],
    manifest: Manifest,
    references: str | None,
    selection: Mapping[str, Any] | None = None,
    *,
    models: Mapping[str, Any] | None = None,
    prompts: Mapping[str, str] | None = None,
    candidates: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return all that decides the labels of a job, as JSON-ready data.

    Args:
        recipe: the configuration without pools, storage and limits.
        weights: SHA-256 of each file of weights by its role.
        manifest: the images of the job.
        references: public URI of the reference masks, if the job uses any.
        selection: which files of the input are taken, if not all of them.
        models: code of the models that are not part of this package, by role.
        prompts: location and SHA-256 of the boxes that are given, if they are.
        candidates: the same of candidates that are given.
    """
    other: dict[str, Any] = {"models": dict(models)} if models else {}
    other |= {"prompts": dict(prompts)} if prompts else {}
    other |= {"candidates": dict(candidates)} if candidates else {}
    chosen = {"selection": dict(selection)} if selection else {}
    return {
        "recipe": dict(recipe),
        "weights": dict(weights),
        **other,
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
        version: schema version of the output.
        notes: lines to show to the user.
    """

    manifest: Manifest
    committed: frozenset[int]
    version: int
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
        OutputError: the location holds files of something else, or the manifest is to be stored in
            a file that holds another one.
        ResumeError: the output was created by a job with another fingerprint or with its manifest
            in another location, or has shards but no manifest; the message lists the changes.
    """
    run = read_run(store)
    notes: list[str] = []
    version = SCHEMA_VERSION if run is None else run["schema_version"]
    if run is None:
        require_empty(store, KIND, RUN)
        _require_free_manifest(store, manifest)
        record = Record(
            KIND,
            RUN,
            fingerprint,
            KEY,
            before={"schema_version": SCHEMA_VERSION},
            after={
                "versions": package_versions(),
                "created": now(),
                "manifest_elsewhere": store.is_elsewhere(MANIFEST),
            },
        )
        store.write(RUN, as_json(record.content()))
    else:
        require_manifest_location(store, run)
        manifest = _resume(store, manifest, run, fingerprint, extend=extend)
        notes.extend(version_notes(run.get("versions", {})))
    if store.read(MANIFEST) is None:
        store.write(MANIFEST, manifest_bytes(manifest))
    return ClaimedJob(manifest, frozenset(committed_shards(store)), version, tuple(notes))


def _require_free_manifest(store: Store, manifest: Manifest) -> None:
    """Check that a new job stores its manifest in a file that is free, or holds it already."""
    if store.is_elsewhere(MANIFEST):
        stored = store.read(MANIFEST)
        if stored is not None and stored != manifest_bytes(manifest):
            raise OutputError(
                f"{store.path_of(MANIFEST)} exists, and is not the manifest of this job: "
                "give --manifest a new file"
            )


def refuse_other_files(store: Store) -> None:
    """Check that a location is empty or the output of a job, before anything is written.

    Raises:
        OutputError: it holds files of something else, or a damaged ``run.json``.
    """
    if read_run(store) is None:
        require_empty(store, KIND, RUN)


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


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the frozen manifest as Parquet; the same manifest gives the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(manifest.frozen, buffer, compression="zstd", row_group_size=65_536)
    return buffer.getvalue()


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
    before, after = run[KEY], fingerprint
    record = Record(KIND, RUN, _without_manifest(after), KEY)
    changes = record.changes({KEY: _without_manifest(before)})
    frozen = read_manifest(store)
    if frozen is None and (committed := committed_shards(store)):
        # A new manifest could put the images of an extended input into other shards.
        shards = counted(len(committed), "committed shard")
        raise ResumeError(
            f"output {store} has {shards}, but {store.path_of(MANIFEST)}, which lists their "
            "images, does not exist: restore it, name it with --manifest, or give another output"
        )
    change = _input_change(frozen, manifest)
    if frozen is None and before["manifest"] != after["manifest"]:
        changes.insert(0, "the input")
    grown = change is not None and change.is_growth and not changes
    if change is not None and not (extend and grown):
        changes.insert(0, f"the input ({change})")
    if changes:
        extending = "add --extend to label the new images in new shards"
        advice = (extending,) if grown else ()
        raise ResumeError(refusal(store, KIND, changes, *advice))
    if frozen is not None and change is None:
        manifest = with_frozen_shards(frozen, manifest)
    elif frozen is not None:
        manifest = extend_manifest(frozen, manifest)
        open_seal(store)
        store.write(MANIFEST, manifest_bytes(manifest))
        run.setdefault("extensions", []).append(
            {"images": manifest.n_images - frozen.num_rows, "at": now()}
        )
    if before["manifest"] != after["manifest"]:
        open_seal(store)
        before["manifest"] = after["manifest"]
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
