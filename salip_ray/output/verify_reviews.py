"""Check what people decided: the file of decisions, and the label maps that they corrected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from salip_ray.output.layout import DECISIONS, REVIEW_MASKS
from salip_ray.output.masks import decode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify_shard import Problem

_VERDICTS = ("corrected", "accepted", "rejected")


def check_reviews(labels: LabelOutput, image_ids: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with the reviews of an output; most outputs have none.

    Args:
        labels: the output.
        image_ids: of all images of the manifest.
    """
    names = set(labels.store.names(REVIEW_MASKS))
    data = labels.read(DECISIONS)
    try:
        decisions = {} if data is None else dict(json.loads(data)["decisions"])
    except (ValueError, KeyError, TypeError):
        yield Problem(DECISIONS, "is damaged: restore it from a copy, or import the reviews again")
        return
    class_ids = {spec.class_id for spec in labels.classes}
    used: set[str] = set()
    for image_id, noted in decisions.items():
        where = f"{DECISIONS} image {image_id}"
        if image_id not in image_ids:
            yield Problem(where, "is not an image of the manifest")
        # Outputs of the first version have one decision per image, without a list.
        for decision in noted if isinstance(noted, list) else [noted]:
            if not isinstance(decision, dict) or decision.get("verdict") not in _VERDICTS:
                yield Problem(where, f"has no verdict of {', '.join(_VERDICTS)}")
                continue
            classes = decision.get("classes")
            if classes is not None and not (
                isinstance(classes, list) and class_ids.issuperset(classes)
            ):
                yield Problem(where, f"names the classes {classes!r}, the task has {class_ids}")
            if decision["verdict"] == "corrected":
                name = str(decision.get("mask") or f"{image_id}.png")
                used.add(name)
                if problem := _check_map(labels, name, decision):
                    yield Problem(f"{REVIEW_MASKS}/{name}", problem)
    for name in sorted(names - used):
        if not _is_superseded(labels, name, decisions):
            yield Problem(f"{REVIEW_MASKS}/{name}", "belongs to no decision")


def _is_superseded(labels: LabelOutput, name: str, decided: Collection[str]) -> bool:
    """Return True if a file is the intact map of an earlier correction, which readers may need."""
    image_id, _, digest = name.removesuffix(".png").rpartition("-")
    data = labels.read(f"{REVIEW_MASKS}/{name}") or b""
    return image_id in decided and hashlib.sha256(data).hexdigest()[:16] == digest


def _check_map(labels: LabelOutput, name: str, decision: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a corrected label map, or None."""
    if "/" in name:
        return "is not a name in the folder of corrected label maps"
    data = labels.read(f"{REVIEW_MASKS}/{name}")
    if data is None:
        return "is missing: import the correction again"
    digest = name.removesuffix(".png").rpartition("-")[2]
    if decision.get("mask") and hashlib.sha256(data).hexdigest()[:16] != digest:
        return "is altered: its sha256 differs from its name"
    try:
        decode_png(data)
    except ValueError:
        return "is not a label map"
    return None
