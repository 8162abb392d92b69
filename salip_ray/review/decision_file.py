"""The file that a review page saves: one JSON file with the decisions on some images.

{"format": "salip_ray review", "version": 1, "output": DIGEST, "classes": {LABEL: ID, ...},
 "images": [{"image_id": ..., "accepted": [ID, ...], "rejected": [...], "corrected": [...],
             "reason": ..., "height": ..., "width": ..., "label_map": RUNS}, ...]}

``label_map`` holds the corrected label map (:mod:`salip_ray.review.runs`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salip_ray.datasets.exports.cases import digest
from salip_ray.errors import InputError
from salip_ray.output.masks import LabelMap
from salip_ray.output.reader import LabelOutput
from salip_ray.review.records import ImageReview
from salip_ray.review.runs import unpack
from salip_ray.schema import Size

FORMAT, VERSION = "salip_ray review", 1
REASONS = (
    *("wrong structure", "too large", "too small", "part is missing", "other tissue included"),
    *("image is unusable", "other"),
)


def output_digest(labels: LabelOutput) -> str:
    """Return a digest that tells outputs apart; new images of an extended job do not change it."""
    made_by = {k: v for k, v in labels.run["fingerprint"].items() if k != "manifest"}
    return digest({"fingerprint": made_by, "created": labels.run.get("created")})


def read_decisions(file: Path, content: Any, labels: LabelOutput) -> list[ImageReview]:
    """Return the decisions in a file that a review page saved.

    Args:
        file: the file, for messages.
        content: what it holds.
        labels: the output that the page was made of.

    Raises:
        InputError: the file is not readable, not of a review page, of another output, or damaged.
            The message names it.
    """
    _check_kind(file, content)
    if content.get("output") != output_digest(labels):
        raise InputError(
            f"{file} has decisions about another output than {labels.uri}: give the output that "
            "its review page was written from"
        )
    known = {spec.label: spec.class_id for spec in labels.classes}
    try:
        classes = {str(label): int(i) for label, i in content["classes"].items()}
        if not classes.items() <= known.items():
            raise ValueError(f"the classes {classes} are not those of the output")
        return [_read(item, frozenset(classes.values()), labels) for item in content["images"]]
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        what = f"{problem} is missing" if isinstance(problem, KeyError) else problem
        raise InputError(f"{file} is damaged: {what}. Save it again in the review page") from None


def load_json(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        InputError: it cannot be read, or is no JSON. The message names it.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{file} cannot be read: {problem.strerror}") from None
    except ValueError:
        raise InputError(
            f"{file} is not a file of decisions: give the JSON file that the review page saved, "
            "or the folder of salip-ray export review"
        ) from None


def _check_kind(file: Path, content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(
            f"{file} was not saved by a review page: give the JSON file that the page saved"
        )
    if content.get("version") != VERSION or not isinstance(content.get("images"), list):
        raise InputError(
            f"{file} has the version {content.get('version')!r}, "
            f"but this version of salip-ray reads {VERSION}"
        )


def _read(item: Mapping[str, Any], classes: frozenset[int], labels: LabelOutput) -> ImageReview:
    image_id = str(item["image_id"])
    verdicts: dict[int, Any] = {}
    for verdict in ("accepted", "rejected", "corrected"):
        for class_id in item.get(verdict, ()):
            if class_id not in classes or class_id in verdicts:
                raise ValueError(f"the decision on class {class_id!r} of image {image_id}")
            verdicts[class_id] = verdict
    reason = item.get("reason", "")
    if reason and reason not in REASONS:
        raise ValueError(f"the reason {reason!r} of image {image_id}")
    return ImageReview(image_id, verdicts, _label_map(item, verdicts, labels), reason)


def _label_map(
    item: Mapping[str, Any], verdicts: Mapping[int, str], labels: LabelOutput
) -> LabelMap | None:
    if "corrected" not in verdicts.values():
        return None
    size: Size = (int(item["height"]), int(item["width"]))
    largest = 255 if len(labels.classes) <= 254 else 65_535
    if not 0 < size[0] * size[1] <= labels.image_config.max_pixels:
        raise ValueError(f"the size of image {item['image_id']}")
    try:
        return unpack(str(item["label_map"]), size, largest)
    except ValueError as problem:
        raise ValueError(f"the label map of image {item['image_id']}: {problem}") from None
