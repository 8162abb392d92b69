"""Bring decisions of people into the output that they are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.datasets.exports.review_import import import_review as import_queue
from salip_ray.datasets.reviews import Decision, Imported, Reviews, Verdict
from salip_ray.errors import InputError
from salip_ray.output.lease import held
from salip_ray.output.masks import encode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.review.decision_file import load_json, read_decisions
from salip_ray.review.records import ImageReview
from salip_ray.review.tools import cvat, fiftyone, label_studio, sidecars
from salip_ray.schema import Size

_ORDER: tuple[Verdict, ...] = ("corrected", "rejected", "accepted")


def import_file(
    file: Path, output: str, storage_options: Mapping[str, Any] | None = None
) -> Imported:
    """Import the file that a review page saved, or the export of Label Studio or CVAT.

    It may be repeated at any time, also before the review is finished: the latest decision counts.

    Args:
        file: on this machine.
        output: the output of ``salip-ray label``.
        storage_options: fsspec options of the output.

    Raises:
        InputError: the file is damaged, of another output, or names unknown images or classes.
        OutputError: ``output`` is not an output, or cannot be written; LeaseError if another
            process writes to it.
    """
    labels = LabelOutput.open(output, storage_options)
    if cvat.is_cvat(file):
        return save_reviews(cvat.read(file, labels), labels, str(file))
    content = load_json(file)
    if isinstance(content, list):
        return save_reviews(label_studio.read(file, content, labels), labels, str(file))
    images = read_decisions(file, content, labels)
    return save_reviews(images, labels, str(file))


def import_folder(
    folder: Path, output: str, storage_options: Mapping[str, Any] | None = None
) -> Imported:
    """Import what LabelMe, X-AnyLabeling or FiftyOne has saved to a folder, or a review queue.

    The rest is as in :func:`import_file`.
    """
    read = None
    if sidecars.is_export(folder):
        read = sidecars.read
    elif fiftyone.is_fiftyone(folder):
        read = fiftyone.read
    if read is None:
        return import_queue(folder, output, storage_options)
    labels = LabelOutput.open(output, storage_options)
    return save_reviews(read(folder, labels), labels, str(folder))


def save_reviews(images: Sequence[ImageReview], labels: LabelOutput, source: str) -> Imported:
    """Add decisions to an output.

    Args:
        images: the decisions.
        labels: the output.
        source: names the review in messages.

    Raises:
        InputError: an image is unknown, or a label map has another size or unknown values.
        OutputError: the output cannot be written; LeaseError if another process writes to it.
    """
    _check(images, labels, source)
    all_classes = {spec.class_id for spec in labels.classes}
    decisions = {
        image.image_id: list(_decisions(image, all_classes)) for image in images if image.verdicts
    }
    maps = {
        image.image_id: encode_png(image.label_map)
        for image in images
        if image.label_map is not None
    }
    if decisions:
        with held(labels.store) as lease:
            # Read again: another import may have added decisions since.
            current = Reviews.of(labels)
            lease.require_owner()
            current.save(labels.store, decisions, maps)
    counts = Counter(_outcome(image) for image in images)
    return Imported(*(counts[name] for name in ("corrected", "accepted", "rejected", "undecided")))


def _outcome(image: ImageReview) -> str:
    verdicts = set(image.verdicts.values())
    return next((verdict for verdict in _ORDER if verdict in verdicts), "undecided")


def _decisions(image: ImageReview, all_classes: set[int]) -> Iterable[Decision]:
    for verdict in _ORDER:
        covered = sorted(i for i, mine in image.verdicts.items() if mine == verdict)
        if not covered:
            continue
        values = None
        if verdict == "corrected" and image.label_map is not None:
            values = tuple(int(value) for value in np.unique(image.label_map))
        yield Decision(
            verdict,
            None if set(covered) == all_classes else tuple(covered),
            values=values,
            reason="" if verdict == "accepted" else image.reason,
        )


def _check(images: Sequence[ImageReview], labels: LabelOutput, source: str) -> None:
    sizes = _sizes(labels, {image.image_id for image in images})
    ignore = 255 if len(labels.classes) <= 254 else 65_535
    allowed = {0, ignore, *(spec.class_id for spec in labels.classes)}
    repeated = [name for name, n in Counter(image.image_id for image in images).items() if n > 1]
    if repeated:
        raise InputError(f"{source} has two decisions on image {repeated[0]}")
    for image in images:
        if image.image_id not in sizes:
            raise InputError(f"{source}: {labels.uri} has no image {image.image_id}")
        if image.label_map is None:
            continue
        height, width = sizes[image.image_id]
        if image.label_map.shape != (height, width):
            actual_height, actual_width = image.label_map.shape
            raise InputError(
                f"{source}: the label map of image {image.image_id} is {actual_height} x "
                f"{actual_width} (height x width), but its image is {height} x {width}"
            )
        if unknown := set(np.unique(image.label_map).tolist()) - allowed:
            raise InputError(
                f"{source}: the label map of image {image.image_id} has the value {min(unknown)}, "
                f"but the class ids are {', '.join(str(value) for value in sorted(allowed))}"
            )


def _sizes(labels: LabelOutput, wanted: set[str]) -> dict[str, Size]:
    return {
        row["image_id"]: (row["height"], row["width"])
        for row in labels.rows(columns=("image_id", "height", "width"))
        if row["image_id"] in wanted
    }
