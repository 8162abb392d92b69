"""Check the files of a whole job: seal, manifest, summary, and files that belong to nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.output import layout
from salip_ray.output.layout import MANIFEST, MASKS, RUN, SEAL, SHARDS, STATS, SUMMARY
from salip_ray.output.manifest import manifest_digest
from salip_ray.output.reader import LabelOutput
from salip_ray.output.seal import read_seal
from salip_ray.output.summary import total_counts
from salip_ray.output.verify_shard import Problem, check_checksum
from salip_ray.sources.locations import image_id
from salip_ray.wording import counted

_REVIEWS = layout.DECISIONS.partition("/")[0]
_FOLDERS = (SHARDS, MASKS, STATS, _REVIEWS)
_FILES = (
    *(RUN, MANIFEST, SUMMARY, SEAL, layout.LEASE, layout.REPORT, layout.REVIEW_PAGE),
    *(layout.EVALUATION, layout.EVALUATION_NNUNET, layout.CALIBRATION),
)
_UNSEALED = "run the label command again, which checks that all is done and writes it"


def check_seal(labels: LabelOutput, data: bytes | None, *, partial: bool) -> Iterator[Problem]:
    """Yield the sealed files that were altered, but for those that shards have to themselves.

    Args:
        labels: the output.
        data: content of the seal, None if there is none.
        partial: accept an output that is not sealed.
    """
    try:
        sealed = read_seal(data)
    except ValueError as error:
        yield Problem(SEAL, f"{error}: restore it from a copy")
        return
    if sealed is None:
        if not partial:
            yield Problem(SEAL, f"{'is missing' if data is None else 'is open'}: {_UNSEALED}")
        return
    for name in (RUN, MANIFEST, SUMMARY):
        content = labels.read(name)
        if name not in sealed:
            yield Problem(SEAL, f"has no checksum of {name}: restore it from a copy")
        elif content is None:
            yield Problem(name, "is missing")
        elif problem := check_checksum(content, [sealed[name]], f"that of {SEAL}"):
            yield Problem(name, problem)


def check_manifest(labels: LabelOutput, manifest: pa.Table) -> Iterator[Problem]:
    """Yield what is wrong with a manifest, :data:`~salip_ray.schema.MANIFEST_SCHEMA`."""
    recorded = labels.run["fingerprint"]["manifest"]
    if manifest.num_rows != recorded["images"]:
        yield Problem(
            MANIFEST, f"has {manifest.num_rows:,} images, {RUN} says {recorded['images']:,}"
        )
    rows_per_shard = labels.recipe["run"]["rows_per_shard"]
    if manifest_digest(manifest, rows_per_shard) != recorded["sha256"]:
        yield Problem(MANIFEST, f"is altered: {RUN} has another sha256 of its images")
    repeated = manifest.num_rows - pc.count_distinct(manifest["image_id"]).as_py()
    if repeated:
        yield Problem(MANIFEST, f"names {counted(repeated, 'image')} twice")
    shards = manifest["shard"].to_numpy()
    if len(shards) and (np.diff(shards, prepend=0) > 1).any():
        yield Problem(MANIFEST, "leaves out a shard number")
    if (np.diff(shards) < 0).any():
        yield Problem(MANIFEST, "is not in the order of its shards")
    for batch in manifest.select(["image_id", "uri", "index"]).to_batches(max_chunksize=65_536):
        for row in batch.to_pylist():
            if row["image_id"] != image_id(row["uri"], row["index"]):
                yield Problem(
                    MANIFEST, f"image {row['image_id']} has another URI or index than its id"
                )
                return


def check_summary(
    labels: LabelOutput, statistics: Sequence[Mapping[str, Any]], images: int, shards: int
) -> Iterator[Problem]:
    """Yield what is wrong with the summary of a complete job.

    Args:
        labels: the output.
        statistics: of all shards.
        images: of the manifest.
        shards: of the manifest.
    """
    data = labels.read(SUMMARY)
    if data is None:
        yield Problem(SUMMARY, f"is missing: {_UNSEALED}")
        return
    try:
        stored = dict(json.loads(data))
    except (ValueError, TypeError):
        yield Problem(SUMMARY, "is not valid JSON")
        return
    expected = {"images": images, "shards": shards, **total_counts(statistics)}
    for name, value in expected.items():
        if stored.get(name) != value:
            yield Problem(SUMMARY, f"{name} is {stored.get(name)!r}, the shards have {value!r}")


def check_root(labels: LabelOutput, *, partial: bool) -> Iterator[Problem]:
    """Yield files and folders at the root of an output that belong to nothing."""
    sizes = labels.store.sizes()
    for name in labels.store.names():
        expected = _FILES if name in sizes else _FOLDERS
        if name not in expected:
            kind = "file" if name in sizes else "folder"
            yield Problem(name, f"is not a {kind} of this output: move it elsewhere")
    for name in labels.store.temporary_names() if not partial else ():
        yield Problem(name, "is a temporary file of a writer that was killed: delete it")
