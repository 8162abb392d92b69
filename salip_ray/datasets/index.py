"""A light index of an output: which image has which labels, and how certain they are.

Only a few leaf columns of the shards are read. Masks are read when they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salip_ray.output.reader import LabelOutput
from salip_ray.schema import ImageRef

_MASK_LEAVES = ("method", "label", "confidence", "presence", "area")
_LEAVES = (
    *("image_id", "uri", "height", "width", "status", "volume", "slice"),
    *(f"masks.list.element.{name}" for name in _MASK_LEAVES),
)


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """The label of one class on one image, in figures. An unknown figure is NaN.

    Attributes:
        confidence: the Dice that the cascade expects, 0 to 1.
        presence: how present the class is in the whole image, 0 to 1.
        area: pixels of the mask.
        reviewed: True if a person accepted or corrected the label.
    """

    confidence: float
    presence: float = math.nan
    area: float = math.nan
    reviewed: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: where its row is in the output, and the labels that it has.

    Attributes:
        uri: that of the row: a pseudonym if the run hid names.
        status: ``ok``, ``empty`` or ``error``; an error row has no height and width (0).
        picture: the file and the index in it.
        figures: those of each class that the image has a label of, by class label.
        confirmed_empty: True if a person confirmed that the image shows none of the classes.
    """

    image_id: str
    uri: str
    picture: ImageRef
    volume: str | None
    slice: int | None
    height: int
    width: int
    shard: str
    row: int
    status: str
    figures: Mapping[str, ClassFigures]
    confirmed_empty: bool = False

    @property
    def confidences(self) -> dict[str, float]:
        """The confidence of each class, by label."""
        return {label: figures.confidence for label, figures in self.figures.items()}

    @property
    def confidence(self) -> float:
        """The confidence of the least certain class: a label map is as good as its worst part.

        Without any label it is 1 if a person confirmed that, else NaN.
        """
        unlabelled = 1.0 if self.confirmed_empty else math.nan
        return min(self.confidences.values(), default=unlabelled)


def read_entries(output: LabelOutput, classes: Collection[str]) -> Iterator[Entry]:
    """Yield the images of an output in order, with or without labels, error rows included.

    Args:
        output: the output.
        classes: labels of the classes to index.

    Raises:
        OutputError: the run hid names, and the manifest is missing.
    """
    for shard in output.shards:
        for number, row in enumerate(output.shard_rows(shard, columns=_LEAVES)):
            yield Entry(
                image_id=row["image_id"],
                uri=row["uri"],
                picture=output.image_ref(row),
                volume=row["volume"],
                slice=row["slice"],
                height=row["height"] or 0,
                width=row["width"] or 0,
                shard=shard,
                row=number,
                status=row["status"],
                figures={
                    mask["label"]: ClassFigures(
                        known(mask.get("confidence")),
                        known(mask.get("presence")),
                        known(mask.get("area")),
                    )
                    for mask in cascade_masks(row, classes)
                },
            )


def cascade_masks(row: Mapping[str, Any], classes: Collection[str]) -> Sequence[Mapping[str, Any]]:
    """Return the cascade's mask cells of a row, of the given classes."""
    return masks_of(row, classes, "cascade")


def masks_of(
    row: Mapping[str, Any], classes: Collection[str], method: str
) -> Sequence[Mapping[str, Any]]:
    """Return the mask cells of a row by one method, of the given classes."""
    return [
        mask for mask in row["masks"] or () if mask["method"] == method and mask["label"] in classes
    ]


def known(value: float | None) -> float:
    """Return a figure of a row as a float, NaN for null."""
    return math.nan if value is None else float(value)


def json_figure(value: float, digits: int = 6) -> float | None:
    """Return a figure for JSON, which knows no NaN: rounded, or None if it is unknown."""
    return None if math.isnan(value) else round(value, digits)
