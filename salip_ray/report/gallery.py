"""The images of a report, each with its outlines and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from salip_ray.cascade.geometry import class_references, working_size_of
from salip_ray.errors import InputError, OutputError
from salip_ray.output.masks import decode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.report.confidence import FIELDS, confidence
from salip_ray.report.loading import load_pictures
from salip_ray.report.pictures import data_uri, outline, picture_box, picture_size
from salip_ray.schema import Image
from salip_ray.sources.privacy import is_pseudonym
from salip_ray.sources.references import References


@dataclass(frozen=True)
class Layer:
    """Outlines that are shown and hidden together: the masks of a method, or the reference."""

    key: str
    colour: int
    path: str


@dataclass(frozen=True)
class BoxMark:
    """The box of a candidate as a rectangle on the picture; a retrieved one is a prompt of SAM."""

    colour: int
    name: str
    retrieved: bool
    box: Mapping[str, str]


@dataclass(frozen=True)
class MaskLine:
    """One mask in figures; an unknown figure is NaN. ``area`` is a share of the image.

    Only masks of the shown method have a confidence: it says nothing about a baseline.
    """

    label: str
    method: str
    colour: int
    confidence: float
    clip_score: float
    clip_margin: float
    predicted_iou: float
    stability_score: float
    area: float
    dice: float


@dataclass(frozen=True)
class CandidateLine:
    """A candidate of a class: retrieved or a runner-up; ``box`` names its box on the picture."""

    label: str
    colour: int
    id: int
    retrieved: bool
    score: float
    predicted_iou: float
    stability_score: float
    box: str


@dataclass(frozen=True)
class Item:
    """One image of the gallery.

    Attributes:
        height: of the image; ``width`` likewise.
        size: height and width of the picture.
        picture: the picture as a ``data:`` URI, or None.
        note: why there is no picture.
    """

    image_id: str
    uri: str
    status: str
    height: int
    width: int
    size: tuple[int, int]
    picture: str | None
    note: str
    slice: int | None
    confidence: float
    dice: float
    n_candidates: int | None
    error: Mapping[str, str] | None
    reasons: Sequence[tuple[str, str]]
    layers: Sequence[Layer] = field(default_factory=tuple)
    boxes: Sequence[BoxMark] = field(default_factory=tuple)
    masks: Sequence[MaskLine] = field(default_factory=tuple)
    candidates: Sequence[CandidateLine] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """The name of the file, and the slice."""
        name = self.uri.partition("?")[0].rstrip("/").rpartition("/")[2] or self.uri
        return name if self.slice is None else f"{name} [{self.slice}]"


def make_items(
    labels: LabelOutput,
    rows: Iterable[Mapping[str, Any]],
    *,
    input_options: Mapping[str, Any] | None = None,
    references: References | None = None,
    dice: Mapping[tuple[str, str, str], float] | None = None,
) -> list[Item]:
    """Fetch the images of some rows and return them as items, in the same order.

    An image that no longer exists is shown by its masks alone, with a note.

    Args:
        labels: the output of the rows.
        rows: rows with all columns.
        input_options: fsspec options of the images.
        references: reference masks to draw.
        dice: scores by image id, label and method.
    """
    rows = list(rows)
    items: dict[int, Item] = {}
    for number, image, note in load_pictures(labels, rows, input_options):
        items[number] = _item(labels, rows[number], image, note, references, dice or {})
    return [items[number] for number in range(len(rows))]


def _item(
    labels: LabelOutput,
    row: Mapping[str, Any],
    image: Image | None,
    note: str,
    references: References | None,
    dice: Mapping[tuple[str, str, str], float],
) -> Item:
    height, width = row["height"] or 0, row["width"] or 0
    if image is not None:
        height, width = image.shape[:2]
    size = picture_size(height, width) if height and width else (0, 0)
    known_size = bool(height and width)
    working = working_size_of(height, width, labels.image_config) if known_size else (1, 1)
    layers, problem = reference_layers(labels, row, references)
    main = "cascade" if "cascade" in labels.methods else labels.methods[0]
    masks = [_mask_line(row, mask, main, dice) for mask in row["masks"] or ()]
    mine = [line for line in masks if line.method == main]
    known = [line.confidence for line in mine if not math.isnan(line.confidence)]
    scores = [line.dice for line in mine if not math.isnan(line.dice)]
    return Item(
        image_id=row["image_id"],
        uri=row["uri"],
        status=row["status"],
        height=height,
        width=width,
        size=size,
        picture=None if image is None else data_uri(image),
        note=note,
        slice=row["slice"],
        confidence=min(known, default=math.nan),
        dice=sum(scores) / len(scores) if scores else math.nan,
        n_candidates=row["n_candidates"],
        error=row["error"],
        reasons=[
            *((o["label"], o["reason"]) for o in row["outcomes"] or () if o["reason"]),
            *([("reference", problem)] if problem else []),
        ],
        layers=[
            *(_layer(mask) for mask in row["masks"] or ()),
            *layers,
        ],
        boxes=list(_boxes(row, main, working, size)),
        masks=masks,
        candidates=list(_candidates(row)),
    )


def _mask_line(
    row: Mapping[str, Any],
    mask: Mapping[str, Any],
    main: str,
    dice: Mapping[tuple[str, str, str], float],
) -> MaskLine:
    figures = {name: _number(mask.get(name)) for name in FIELDS if name in mask}
    return MaskLine(
        label=mask["label"],
        method=mask["method"],
        colour=mask["class_id"],
        confidence=(
            float(confidence({k: [v] for k, v in figures.items()})[0])
            if mask["method"] == main
            else math.nan
        ),
        clip_score=_number(mask["clip_score"]),
        clip_margin=_number(mask["clip_margin"]),
        predicted_iou=_number(mask["predicted_iou"]),
        stability_score=_number(mask["stability_score"]),
        area=_number(mask["area"]) / (row["height"] * row["width"]),
        dice=dice.get((row["image_id"], mask["label"], mask["method"]), math.nan),
    )


def _layer(mask: Mapping[str, Any]) -> Layer:
    return Layer(mask["method"], mask["class_id"], outline(decode_rle(mask["rle"])))


def reference_layers(
    labels: LabelOutput, row: Mapping[str, Any], references: References | None
) -> tuple[list[Layer], str]:
    """Return the outlines of an image's reference, and why there are none if one was expected.

    Args:
        labels: the output.
        row: of the image.
        references: the reference masks, or None.
    """
    if references is None:
        return [], ""
    try:
        image = labels.image_ref(row)
        mask = references.find(image)
        if mask is None:
            return [], references.ambiguity(image) or ""
        ids = references.load(mask, labels.image_config)
    except (InputError, OutputError) as error:
        # Only scoring treats a bad reference as an error.
        return [], "cannot be read" if is_pseudonym(row["uri"]) else str(error)
    if ids.shape != (row["height"], row["width"]):
        return [], f"has {ids.shape[0]} x {ids.shape[1]} pixels, not those of its image"
    masks = class_references(ids, labels.classes)
    layers = [
        Layer("reference", spec.class_id, outline(np.asarray(masks[spec.label], np.bool_)))
        for spec in labels.classes
        if masks[spec.label].any()
    ]
    return layers, ""


def _boxes(
    row: Mapping[str, Any], main: str, working: tuple[int, int], size: tuple[int, int]
) -> Iterable[BoxMark]:
    """Yield the boxes of ranked candidates, or the prompt boxes if the run ranked none."""
    boxes = [(item["class_id"], item["retrieved"], item["box"]) for item in row["ranking"] or ()]
    if not boxes:
        prompted = [mask for mask in row["masks"] or () if mask["method"] == main]
        boxes = [(m["class_id"], True, box) for m in prompted for box in m["prompt_boxes"] or ()]
    for number, (class_id, retrieved, box) in enumerate(boxes):
        yield BoxMark(class_id, f"box-{number}", retrieved, picture_box(box, working, size))


def _candidates(row: Mapping[str, Any]) -> Iterable[CandidateLine]:
    for number, entry in enumerate(row["ranking"] or ()):
        yield CandidateLine(
            label=entry["label"],
            colour=entry["class_id"],
            id=entry["candidate_id"],
            retrieved=entry["retrieved"],
            score=_number(entry["clip_score"]),
            predicted_iou=_number(entry["predicted_iou"]),
            stability_score=_number(entry["stability_score"]),
            box=f"box-{number}",
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
