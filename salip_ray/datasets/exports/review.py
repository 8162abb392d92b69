"""The review queue: the labels most worth a person's time, worst first, and what came of them.

    REVIEW/
      queue.csv      one line an image, the least certain first; the column decision is yours
      images/        NAME.png, the picture
      masks/         NAME.png, the label map: correct it here, with any tool that keeps class ids
      overlays/      NAME.png, the picture with outlines, to look at

A changed mask is a correction. ``accept`` in the column ``decision`` confirms a label as it is,
``reject`` throws it away; nothing leaves it as it was. ``import_review`` brings the decisions back
into the output, where :class:`salip_ray.datasets.pseudo_labels.PseudoLabels` heeds them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from salip_ray.datasets.exports.cases import Parts, about, case_name, digest, png, rgb_png
from salip_ray.datasets.exports.destination import RECORD, Destination
from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision, Reviews, Verdict
from salip_ray.errors import ImageError, InputError
from salip_ray.output.masks import LabelMap, decode_png, encode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Image

QUEUE = "queue.csv"
_COLUMNS = ("rank", "name", "decision", "confidence", "image_id", "uri", "mask_sha256")
_PALETTE = ((230, 60, 60), (60, 160, 230), (70, 190, 80), (230, 170, 40), (170, 90, 210))


def export(
    labels: PseudoLabels,
    location: str,
    *,
    limit: int | None = None,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write the queue; returns the number of images.

    Images on whose labels a person has decided already are left out.

    Args:
        labels: what to review.
        location: an empty or new place.
        limit: only so many, the least certain.
        storage_options: fsspec options of ``location``.

    Raises:
        OutputError: the location holds something else, or a queue of before other decisions.
        InputError: an image cannot be read.
    """
    undecided = [entry for entry in labels.entries if not _is_decided(entry, labels)]
    queue = sorted(undecided, key=lambda entry: (entry.confidence, entry.image_id))[:limit]
    shown = digest([entry.image_id for entry in queue])
    destination = Destination(
        location, about("review", labels, Parts(), limit=limit, queue=shown), storage_options
    )
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    names: dict[str, str] = {}
    for rank, entry in enumerate(queue, start=1):
        name = names[entry.image_id] = f"{rank:05d}-{case_name(entry)}"
        writer.writerow(
            (
                *(rank, name, "", f"{entry.confidence:.4f}", entry.image_id, entry.uri),
                _digest(labels.label_map(entry)),
            )
        )
    # The slices of a volume one after the other, however they rank: it is unpacked once.
    for entry in sorted(queue, key=lambda entry: (entry.picture.uri, entry.picture.index or 0)):
        folders = ("images", "overlays", "masks")
        files = [f"{folder}/{names[entry.image_id]}.png" for folder in folders]
        if destination.has(*files):
            continue
        image, label_map = labels.images.load(entry.picture), labels.label_map(entry)
        pngs = (rgb_png(image), png(overlay(image, label_map)), encode_png(label_map))
        for file, data in zip(files, pngs, strict=True):
            destination.write(file, data)
    if not destination.has(QUEUE):  # a person may have written into it
        destination.write(QUEUE, text.getvalue())
    destination.complete(images_written=len(queue))
    return len(queue)


def overlay(image: Image, label_map: LabelMap) -> Image:
    """The picture with the outline of each class, RGB [H, W, 3]."""
    drawn = image.copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    for class_id in np.unique(label_map[label_map > 0]).tolist():
        mask = (label_map == class_id).astype(np.uint8)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, found, -1, _PALETTE[class_id % len(_PALETTE)], width, cv2.LINE_AA)
    return drawn


@dataclass(frozen=True, slots=True)
class Imported:
    """How many images of a review were corrected, accepted, rejected, and left undecided."""

    corrected: int
    accepted: int
    rejected: int
    undecided: int


def import_review(
    review: Path, output: str, storage_options: Mapping[str, Any] | None = None
) -> Imported:
    """Bring the decisions of a review into the output it was made of.

    May be done again at any time, also in the middle of the work: the latest decision counts.

    Args:
        review: the folder, on this machine.
        output: the output of ``salip-ray label``.
        storage_options: fsspec options of the output.

    Raises:
        InputError: the folder is not a review, names an image that the output does not have, has an
            unknown decision, or a mask that is unreadable, of another size or of unknown classes.
        OutputError: the output is not one of ours, or cannot be written.
    """
    labels = LabelOutput.open(output, storage_options)
    reviews = Reviews.open(output, storage_options)
    queue = _queue(review)
    sizes = _sizes(labels, {line["image_id"] for line in queue})
    shown = _shown(review)
    everything = shown == {spec.class_id for spec in labels.classes}
    classes = None if everything else tuple(sorted(shown))
    found: dict[str, Decision] = {}
    maps: dict[str, bytes] = {}
    counts = dict.fromkeys(("corrected", "accepted", "rejected"), 0)
    for line in queue:
        image_id = line["image_id"]
        if image_id not in sizes:
            raise InputError(f"{review / QUEUE}: {labels.uri} has no image {image_id}")
        said = (line["decision"] or "").strip().lower()
        if said not in {"", "accept", "reject"}:
            raise InputError(
                f"{review / QUEUE}: the decision on {line['name']} is {line['decision']!r}, "
                "but must be accept, reject or empty"
            )
        mask_file = review / "masks" / f"{line['name']}.png"
        label_map = _mask(mask_file, sizes[image_id], {0, 255, *shown})
        verdict: Verdict
        if said == "reject":
            verdict = "rejected"
        elif _digest(label_map) != line["mask_sha256"]:
            verdict = "corrected"
        elif said == "accept":
            verdict = "accepted"
        else:
            continue
        counts[verdict] += 1
        earlier = reviews.standing(image_id, shown).values()
        if verdict == "accepted" and any(one.verdict == "corrected" for one in earlier):
            verdict = "corrected"  # what was accepted is the map that was seen, not the cascade's
        found[image_id] = Decision(verdict, classes)
        if verdict == "corrected":
            values = tuple(np.unique(label_map).tolist())
            found[image_id] = Decision(verdict, classes, values=values)
            maps[image_id] = encode_png(label_map)
    reviews.save(found, maps)
    return Imported(**counts, undecided=len(queue) - len(found))


def _is_decided(entry: Entry, labels: PseudoLabels) -> bool:
    decided = labels.decided.get(entry.image_id)
    return decided is not None and all(labels.class_ids[c] in decided for c in entry.confidences)


def _shown(review: Path) -> set[int]:
    """Ids of the classes that a review shows: of others it says nothing."""
    try:
        return set(json.loads((review / RECORD).read_bytes())["classes"].values())
    except (FileNotFoundError, ValueError, KeyError):
        raise InputError(
            f"{review} holds no {RECORD} of a review: keep it beside {QUEUE}"
        ) from None


def _queue(review: Path) -> list[dict[str, str]]:
    try:
        # Spreadsheets put a mark before UTF-8.
        with (review / QUEUE).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError:
        raise InputError(f"{review} holds no {QUEUE}: it is not a review") from None
    if missing := set(_COLUMNS) - set(reader.fieldnames or ()):
        raise InputError(f"{review / QUEUE} has no column {sorted(missing)[0]!r}")
    return rows


def _sizes(labels: LabelOutput, wanted: set[str]) -> dict[str, tuple[int, int]]:
    return {
        row["image_id"]: (row["height"], row["width"])
        for row in labels.rows(columns=("image_id", "height", "width"))
        if row["image_id"] in wanted
    }


def _mask(path: Path, size: tuple[int, int], allowed: set[int]) -> LabelMap:
    try:
        label_map = decode_png(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: to throw a label away write reject") from None
    except ValueError:
        raise ImageError(f"{path} must be a grey PNG whose values are class ids") from None
    if label_map.shape != size:
        raise InputError(
            f"{path} is {label_map.shape[0]} x {label_map.shape[1]} (height x width), "
            f"but its image is {size[0]} x {size[1]}"
        )
    if unknown := set(np.unique(label_map).tolist()) - allowed:
        raise InputError(
            f"{path} has the value {min(unknown)}, but class ids are "
            f"{', '.join(str(value) for value in sorted(allowed))}"
        )
    return label_map


def _digest(label_map: LabelMap) -> str:
    """Of the pixels, so that a tool that only saves again changes nothing."""
    values = np.ascontiguousarray(label_map, dtype=np.uint16)
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()
