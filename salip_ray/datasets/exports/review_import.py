"""Bring the decisions of a review back into the output that it was made of."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.datasets.exports import palette
from salip_ray.datasets.exports.review import CLASSES_COLUMN, COLUMNS, QUEUE, mask_digest
from salip_ray.datasets.reviews import Decision, Imported, Reviews
from salip_ray.errors import ImageError, InputError
from salip_ray.output.layout import EXPORT
from salip_ray.output.lease import held
from salip_ray.output.masks import LabelMap, encode_png, ignore_value
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store import Store


@dataclass(frozen=True)
class _Review:
    """A review folder and the output it was made of."""

    folder: Path
    labels: Mapping[int, str]  #: label by id, of the classes that the review shows
    ignore_index: int

    def mask(self, line: Mapping[str, str], size: tuple[int, int]) -> LabelMap:
        """Return the label map of a line of the queue, checked against its image and classes."""
        path = self.folder / "masks" / f"{line['name']}.png"
        try:
            label_map = palette.decode(path.read_bytes())
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: restore it, or write reject into {QUEUE} to discard the label"
            ) from None
        except ValueError as error:
            raise ImageError(f"{path} cannot be imported: {error}") from None
        if label_map.shape != size:
            raise InputError(
                f"{path} is {label_map.shape[0]} x {label_map.shape[1]} (height x width), "
                f"but its image is {size[0]} x {size[1]}: do not resize masks"
            )
        allowed = {0, self.ignore_index, *self.labels}
        if unknown := set(np.unique(label_map).tolist()) - allowed:
            raise InputError(
                f"{path} has the value {min(unknown)}, but the class ids are "
                f"{', '.join(str(value) for value in sorted(allowed))}"
            )
        return label_map

    def check_correction(self, line: Mapping[str, str], label_map: LabelMap) -> None:
        """Refuse a mask in which the ignore value replaced a class: a tool that saved 0 and 255."""
        values = set(np.unique(label_map).tolist())
        if self.ignore_index not in values:
            return
        shown = line.get(CLASSES_COLUMN)
        before = {int(text) for text in shown.split()} if shown is not None else set(self.labels)
        gone = before - values
        if not gone or (shown is None and gone != before):
            return
        class_id = min(gone)
        where = self.folder / "masks" / f"{line['name']}.png"
        raise InputError(
            f"{where}: class {class_id} ({self.labels.get(class_id, '?')}) is gone and the value "
            f"{self.ignore_index} took its place. {self.ignore_index} means ignore, so the label "
            f"would be lost. Paint the class with the value {class_id}, or with its colour in the "
            f"exported mask; to discard the label, restore the mask and write reject into {QUEUE}"
        )


def import_review(
    review: Path, output: str, storage_options: Mapping[str, Any] | None = None
) -> Imported:
    """Bring the decisions of a review into its output.

    It may be repeated at any time, also before the review is finished: the latest decision counts.

    Args:
        review: the folder, on this machine.
        output: the output of ``salip-ray label``.
        storage_options: fsspec options of the output.

    Raises:
        InputError: the folder is not a review, names an image that the output does not have, or has
            an unknown decision; or a mask is unreadable, of another size, of unknown classes, or
            has the ignore value in place of a class.
        OutputError: ``output`` is not an output, or cannot be written; LeaseError if another
            process writes to it.
    """
    labels = LabelOutput.open(output, storage_options)
    reviews = Reviews.of(labels)
    queue = _read_queue(review)
    sizes = _sizes(labels, {line["image_id"] for line in queue})
    folder = _Review(review, _shown_classes(review), ignore_value(len(labels.classes)))
    shown_all = set(folder.labels) == {spec.class_id for spec in labels.classes}
    classes = None if shown_all else tuple(sorted(folder.labels))
    decisions: dict[str, Decision] = {}
    label_maps: dict[str, bytes] = {}
    counts = {"corrected": 0, "accepted": 0, "rejected": 0}
    for line in queue:
        image_id = line["image_id"]
        if image_id not in sizes:
            raise InputError(f"{review / QUEUE}: {labels.uri} has no image {image_id}")
        written = _written_decision(review, line)
        if written == "reject":  # whatever became of the mask
            decisions[image_id] = Decision("rejected", classes)
            counts["rejected"] += 1
            continue
        label_map = folder.mask(line, sizes[image_id])
        changed = mask_digest(label_map) != line["mask_sha256"]
        if changed:
            folder.check_correction(line, label_map)
        elif not written:
            continue
        counts["corrected" if changed else "accepted"] += 1
        earlier = reviews.standing(image_id, list(folder.labels)).values()
        # Accepting a map that an earlier review corrected accepts that one, not the cascade's.
        if changed or any(decision.verdict == "corrected" for decision in earlier):
            values = tuple(np.unique(label_map).tolist())
            decisions[image_id] = Decision("corrected", classes, values=values)
            label_maps[image_id] = encode_png(label_map)
        else:
            decisions[image_id] = Decision("accepted", classes)
    if decisions:
        store = Store(output, storage_options)
        with held(store) as lease:
            # Read again: another import may have added decisions since.
            current = Reviews.of(labels)
            lease.require_owner()
            new = {image_id: [one] for image_id, one in decisions.items()}
            current.save(store, new, label_maps)
    return Imported(**counts, undecided=len(queue) - len(decisions))


def _written_decision(review: Path, line: Mapping[str, str]) -> str:
    written = (line["decision"] or "").strip().lower()
    if written not in {"", "accept", "reject"}:
        raise InputError(
            f"{review / QUEUE}: the decision on {line['name']} is {line['decision']!r}, "
            "but must be accept, reject or empty"
        )
    return written


def _shown_classes(review: Path) -> dict[int, str]:
    """Return the classes that a review shows, label by id; it decides nothing about others."""
    try:
        classes = json.loads((review / EXPORT).read_bytes())["classes"]
        return {class_id: label for label, class_id in classes.items()}
    except (FileNotFoundError, ValueError, KeyError):
        raise InputError(
            f"{review} holds no {EXPORT} of a review: keep it next to {QUEUE}"
        ) from None


def _read_queue(review: Path) -> list[dict[str, str]]:
    try:
        # Spreadsheets put a byte-order mark before UTF-8.
        with (review / QUEUE).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError:
        if not review.exists():
            raise InputError(f"review {review} does not exist") from None
        raise InputError(f"{review} holds no {QUEUE}, so it is not a review") from None
    except UnicodeDecodeError:
        raise InputError(f"{review / QUEUE} is not UTF-8: save it as CSV UTF-8") from None
    if missing := set(COLUMNS) - set(reader.fieldnames or ()):
        raise InputError(f"{review / QUEUE} has no column {sorted(missing)[0]!r}")
    return rows


def _sizes(labels: LabelOutput, wanted: set[str]) -> dict[str, tuple[int, int]]:
    return {
        row["image_id"]: (row["height"], row["width"])
        for row in labels.rows(columns=("image_id", "height", "width"))
        if row["image_id"] in wanted
    }
