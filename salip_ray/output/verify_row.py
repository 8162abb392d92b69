"""Check one row, and the label map and JSON file of its image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from salip_ray.config import ClassSpec
from salip_ray.output.cells import read_mask
from salip_ray.output.layout import description_member, label_map_member
from salip_ray.output.masks import (
    PAINTED,
    area,
    bbox_xywh,
    decode_png,
    decode_rle,
    encode_rle,
    label_map,
    union_of,
)
from salip_ray.schema import STATUSES


def check_row(row: Mapping[str, Any], classes: Sequence[ClassSpec]) -> Iterator[str]:
    """Yield what is wrong with a row of :data:`salip_ray.schema.LABEL_SCHEMA`."""
    if row["status"] not in STATUSES:
        yield f"has the status {row['status']!r}, which is none of {', '.join(STATUSES)}"
        return
    if row["status"] == "error":
        if not row["error"] or not all(row["error"].get(k) for k in ("stage", "type", "message")):
            yield "is an error without a stage, a type and a message"
        if row["masks"]:
            yield "is an error and has masks"
        return
    if row["error"]:
        yield f"is {row['status']} and has an error"
    height, width = row["height"], row["width"]
    if not height or not width:
        yield f"has the size {height} x {width}"
        return
    ids = {spec.label: spec.class_id for spec in classes}
    for mask in row["masks"] or ():
        what = f"mask of {mask['label']!r} by {mask['method']}"
        if ids.get(mask["label"]) != mask["class_id"]:
            yield f"{what} has the class id {mask['class_id']}, the task {ids.get(mask['label'])}"
        sound = True
        for problem in _check_shape(mask, height, width):
            sound = False
            yield f"{what} {problem}"
        if (proposed := mask["proposed"]) is not None and not _is_rle(proposed, height, width):
            yield f"{what} has candidates that are no mask of {height} x {width}"
        if sound:
            yield from (f"{what} {problem}" for problem in _check_instances(mask))
    methods = Counter((mask["label"], mask["method"]) for mask in row["masks"] or ())
    for (label, method), count in methods.items():
        if count > 1:
            yield f"has {count} masks of {label!r} by {method}"
    if row["status"] == "ok" and not row["masks"]:
        yield "is ok and has no mask"


def _check_shape(cell: Mapping[str, Any], height: int, width: int) -> Iterator[str]:
    """Yield what is wrong with the RLE, the area or the box of a mask or instance."""
    rle = cell["rle"]
    if rle["size"] != [height, width]:
        yield f"is of size {rle['size']}, the image {height} x {width}"
    elif area(rle) != cell["area"]:
        yield f"has {area(rle)} pixels, its area says {cell['area']}"
    elif list(bbox_xywh(rle)) != cell["bbox"]:
        yield f"has the box {bbox_xywh(rle)}, its bbox says {cell['bbox']}"


def _check_instances(mask: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the instances of a mask: their union must be the mask."""
    instances = mask.get("instances")
    if not instances:
        return  # the mask is one object, or the output stores no instances
    if len(instances) == 1:
        yield "has one instance, which must be left out"
    for number, instance in enumerate(instances):
        if not _is_rle(instance["rle"], *mask["rle"]["size"]):
            yield f"has an instance {number} that is no mask of its size"
            return
        for problem in _check_shape(instance, *mask["rle"]["size"]):
            yield f"has an instance {number} that {problem}"
        if not instance["area"]:
            yield f"has an instance {number} without a pixel"
        candidate = instance["candidate_id"]
        if candidate is not None and candidate not in (mask["candidate_ids"] or ()):
            yield f"has an instance {number} of candidate {candidate}, of which it is not made"
    if union_of(item["rle"] for item in instances) != mask["rle"]:
        yield "is not the union of its instances"


def _is_rle(rle: Mapping[str, Any], height: int, width: int) -> bool:
    """Return True if a run-length encoding covers exactly the pixels of an image."""
    if list(rle["size"] or ()) != [height, width]:
        return False
    try:
        mask = decode_rle(rle)
    except (ValueError, TypeError):
        return False
    return encode_rle(mask) == {"size": [height, width], "counts": rle["counts"]}


def check_members(
    row: Mapping[str, Any], members: Mapping[str, bytes], classes: Sequence[ClassSpec]
) -> Iterator[str]:
    """Yield what is wrong with a row's members of the tar file of its shard.

    Args:
        row: of :data:`salip_ray.schema.LABEL_SCHEMA`.
        members: contents of the tar file by name.
        classes: of the task.
    """
    png = members.get(label_map_member(row["image_id"]))
    about = members.get(description_member(row["image_id"]))
    if row["status"] == "error":
        if png is not None or about is not None:
            yield "is there, but its row is an error"
        return
    if about is None:
        yield "has no JSON"
    elif not _describes(about, row, classes):
        yield "its JSON differs from its row"
    if png is None:
        yield "has no label map"
        return
    try:
        labels = decode_png(png)
    except ValueError as error:
        yield f"its label map cannot be read: {error}"
        return
    size = (row["height"], row["width"])
    if labels.shape != size:
        shape = f"{labels.shape[0]} x {labels.shape[1]}"
        yield f"its label map is {shape}, its image {size[0]} x {size[1]}"
        return
    masks = [mask for mask in row["masks"] or () if mask["method"] in PAINTED]
    if any(mask["rle"]["size"] != list(size) for mask in masks):
        return  # reported by check_row
    painted = label_map([read_mask(mask) for mask in masks], *size, n_classes=len(classes))
    if labels.dtype != painted.dtype:
        yield f"its label map has {labels.dtype} pixels instead of {painted.dtype}"
    elif not np.array_equal(labels, painted):
        differ = int(np.count_nonzero(labels != painted))
        yield f"its label map differs from the masks of its row in {differ:,} pixels"


def _describes(about: bytes, row: Mapping[str, Any], classes: Sequence[ClassSpec]) -> bool:
    try:
        data = json.loads(about)
    except ValueError:
        return False
    ids = {spec.label: spec.class_id for spec in classes}
    names = ("image_id", "uri", "height", "width", "status", "outcomes")
    return data.get("classes") == ids and all(data.get(name) == row[name] for name in names)
