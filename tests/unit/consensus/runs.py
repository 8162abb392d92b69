"""Write small runs as ``label`` does, without a model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from salip_ray.config import load_config
from salip_ray.output import job_record
from salip_ray.output.cells import pack_masks
from salip_ray.output.commit import commit_shard
from salip_ray.output.layout import MANIFEST
from salip_ray.output.manifest import make_manifest
from salip_ray.output.masks import encode_png, label_map
from salip_ray.output.store import Store
from salip_ray.output.summary import summarise, write_summary
from salip_ray.schema import COMMIT_COLUMNS, LABEL_SCHEMA, ClassMask, ClipScores
from salip_ray.sources.listing import LISTING_SCHEMA, Listing

SIZE = (6, 8)
SCHEMA = pa.schema([*LABEL_SCHEMA, *(pa.field(k, v) for k, v in COMMIT_COLUMNS.items())])


def block(rows, columns=(0, 8), size=SIZE):
    """Return a mask that is set in a range of rows and one of columns."""
    mask = np.zeros(size, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def write_run(
    folder,
    images,
    *,
    classes=("lungs",),
    per_shard=2,
    finish=True,
    settings=(),
    confidences=None,
    bytes_of=None,
    manifest=None,
    volume_of=lambda name: None,
):
    """Write a run; ``images`` maps a name to the masks by label, or to the message of an error.

    A mask may also come with a CLIP score: ``{"heart": (mask, 30.0)}``. ``confidences`` are those
    of all labels of an image, by its name, and ``bytes_of`` the sizes of its file. The manifest is
    written to the file ``manifest``, if it is given. ``volume_of`` returns the volume of a name.
    """
    store = Store(folder, elsewhere={} if manifest is None else {MANIFEST: str(manifest)})
    prompts = {label: [f"a {label}"] for label in classes}
    config = load_config(
        {"task": {"name": "chest", "prompts": prompts}, "run": {"rows_per_shard": per_shard}},
        overrides=list(settings),
    )
    uris = [
        {"uri": f"/in/{n}", "size": (bytes_of or {}).get(n, 1), "etag": None, "address": None}
        for n in images
    ]
    manifest = make_manifest(
        Listing(pa.Table.from_pylist(uris, schema=LISTING_SCHEMA)), config.run.rows_per_shard
    )
    made_by = job_record.make_fingerprint(config.recipe(), {"sam": "a" * 64}, manifest, None)
    job_record.claim_or_resume_job(store, manifest, made_by)
    ids = {label: number for number, label in enumerate(classes, start=1)}
    for shard in range(manifest.n_shards):
        planned = [row for row in manifest.table.to_pylist() if row["shard"] == shard]
        names = [row["uri"].removeprefix("/in/") for row in planned]
        rows = [
            _row(row, images[name], ids, (confidences or {}).get(name, 0.5))
            | {"volume": volume_of(name)}
            for name, row in zip(names, planned, strict=True)
        ]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        commit_shard(store, shard, table, len(rows), ids)
    if finish:
        write_summary(store, summarise(store, manifest))
    return folder


def _row(planned, content, ids, confidence):
    about = {"image_id": planned["image_id"], "uri": planned["uri"]}
    about |= {"_seq": planned["seq"], "_shard": planned["shard"]}
    if isinstance(content, str):
        error = {"stage": "fetch", "type": "ImageError", "message": content}
        return {**about, "status": "error", "error": error}
    masks = []
    for label, item in content.items():
        mask, score = item if isinstance(item, tuple) else (item, 20.0)
        if mask.any():
            masks.append(
                ClassMask(
                    "cascade",
                    label,
                    ids[label],
                    mask,
                    clip=ClipScores(score),
                    confidence=confidence,
                )
            )
    size = next(iter(content.values()), np.zeros(SIZE))
    height, width = (size[0] if isinstance(size, tuple) else size).shape
    labelled = {mask.label for mask in masks}
    return {
        **about,
        "height": height,
        "width": width,
        "status": "ok" if masks else "empty",
        "outcomes": [
            {
                "label": label,
                "outcome": "labelled" if label in labelled else "empty",
                "reason": "" if label in labelled else "too few candidates",
            }
            for label in ids
        ],
        "masks": pack_masks(masks),
        "ranking": [],
        "_png": encode_png(label_map(masks, height, width, n_classes=len(ids))),
    }
