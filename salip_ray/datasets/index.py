"""A light index of an output: which images have which labels, how sure, and where they lie.

It is read from a few leaf columns of the shards; masks stay where they are until asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salip_ray.output.reader import LabelOutput
from salip_ray.schema import ImageRef

_LEAVES = (
    "image_id",
    "uri",
    "height",
    "width",
    "status",
    "volume",
    "slice",
    "masks.list.element.method",
    "masks.list.element.label",
    "masks.list.element.confidence",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled image: its place in the output, and the confidence of each class it has.

    ``uri`` is that of the row, a pseudonym where the run hid names; ``picture`` has the file's own.
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
    confidences: Mapping[str, float]

    @property
    def confidence(self) -> float:
        """That of the least certain class, for a label map is as good as its worst part.

        1 where there is no class any more, which only a person can say.
        """
        return min(self.confidences.values(), default=1.0)


def entries(
    labels: LabelOutput, classes: Collection[str], also: Collection[str] = ()
) -> Iterator[Entry]:
    """The images of an output that the cascade gave at least one of the classes, in order.

    Args:
        labels: the output.
        classes: labels of classes.
        also: ids of labelled images to give whatever their classes.

    Raises:
        OutputError: the run hid names, and the manifest is missing.
    """
    for shard in labels.shards:
        for row, cells in enumerate(labels.shard_rows(shard, columns=_LEAVES)):
            found = cascade_masks(cells, classes)
            if cells["status"] == "ok" and (found or cells["image_id"] in also):
                yield Entry(
                    image_id=cells["image_id"],
                    uri=cells["uri"],
                    picture=labels.picture(cells),
                    volume=cells["volume"],
                    slice=cells["slice"],
                    height=cells["height"],
                    width=cells["width"],
                    shard=shard,
                    row=row,
                    confidences={mask["label"]: mask["confidence"] for mask in found},
                )


def cascade_masks(row: Mapping[str, Any], classes: Collection[str]) -> Sequence[Mapping[str, Any]]:
    """The cascade's mask cells of a row, of some classes."""
    return [
        mask
        for mask in row["masks"] or ()
        if mask["method"] == "cascade" and mask["label"] in classes
    ]
