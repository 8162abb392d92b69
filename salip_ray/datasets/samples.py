"""From an entry of an output to its pixels: the image, its masks and its label map."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from salip_ray.datasets.images import Images
from salip_ray.datasets.index import Entry, masks_of
from salip_ray.datasets.reviews import Reviews, drawn_cells
from salip_ray.errors import InputError
from salip_ray.output.cells import instance_cells, read_mask
from salip_ray.output.masks import LabelMap, decode_rle, ignore_value, label_map
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Image

_CACHED_ROW_GROUPS = 16
_MASK_COLUMNS = ("masks",)
_MOST_OBJECTS = 65_534  # 0 is the background, 65,535 is to be ignored
RowGroups = OrderedDict[tuple[str, int], list[dict[str, Any]]]


class Sample(TypedDict):
    """One image with its labels.

    ``image`` is uint8 RGB [H, W, 3]. ``labels`` holds class ids [H, W]: 0 for the background, and
    :attr:`~salip_ray.datasets.pseudo_labels.PseudoLabels.ignore_index` for pixels that training
    must ignore. ``confidence`` is that of the least certain class, or NaN if it is unknown.
    """

    image: Image
    labels: LabelMap
    confidence: float
    image_id: str
    uri: str


@dataclass(frozen=True)
class SampleReader:
    """Reads the pixels of entries. It may be pickled: caches stay behind.

    Attributes:
        output: the output.
        reviews: the decisions about it.
        class_ids: ids of the wanted classes, by label.
        images: the labelled images.
        ignore_disagreement: mark pixels on which candidate and refined mask differ.
    """

    output: LabelOutput
    reviews: Reviews
    class_ids: Mapping[str, int]
    images: Images
    ignore_disagreement: bool = False
    _row_groups: RowGroups = field(default_factory=OrderedDict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_row_groups": OrderedDict()}

    @property
    def ignore_index(self) -> int:
        """The value of pixels that a loss must ignore: 255, or 65535 in 16-bit maps."""
        return ignore_value(len(self.output.classes))

    def sample(self, entry: Entry) -> Sample:
        """Return the image and labels of an entry.

        Raises:
            InputError: the image is missing, unreadable or of another size than its labels.
        """
        image = self.images.load(entry.picture, name=entry.uri)
        if image.shape[:2] != (entry.height, entry.width):
            raise InputError(
                f"image {self.images.shown(entry.picture.uri, entry.uri)} is "
                f"{image.shape[0]} x {image.shape[1]} (height x width), but was "
                f"{entry.height} x {entry.width} when it was labelled: restore it or label it again"
            )
        return Sample(
            image=image,
            labels=self.label_map(entry),
            confidence=entry.confidence,
            image_id=entry.image_id,
            uri=entry.uri,
        )

    def masks(self, entry: Entry) -> Sequence[Mapping[str, Any]]:
        """Return the mask cells (:data:`salip_ray.schema.MASK_TYPE`) of an entry, as reviewed."""
        standing = self.reviews.standing(entry.image_id, self.class_ids.values())
        drawn = self.reviews.drawn(standing, self.ignore_index)
        by_hand = [] if drawn is None else drawn_cells(drawn, self.class_ids)
        return [*self._cascade_cells(entry), *by_hand]

    def label_map(self, entry: Entry) -> LabelMap:
        """Return the label map [H, W] of an entry; corrections lie above the cascade's masks."""
        standing = self.reviews.standing(entry.image_id, self.class_ids.values())
        cells = self._cascade_cells(entry)
        disputed = [c for c in self._cells(entry, "disagreement") if c["class_id"] not in standing]
        merged = label_map(
            [read_mask(cell) for cell in (*cells, *disputed)],
            entry.height,
            entry.width,
            n_classes=len(self.output.classes),
        )
        if self.ignore_disagreement:
            for cell in cells:
                if cell["class_id"] not in standing and cell["proposed"] is not None:
                    unsure = decode_rle(cell["proposed"]) != decode_rle(cell["rle"])
                    merged[unsure] = self.ignore_index
        drawn = self.reviews.drawn(standing, self.ignore_index)
        if drawn is not None:
            merged[drawn > 0] = drawn[drawn > 0]
        return merged

    def instance_map(self, entry: Entry) -> npt.NDArray[np.uint16]:
        """Return a map [H, W] of the objects of an entry: 1, 2, ... class by class, 0 elsewhere.

        It agrees with the label map: an object has only pixels of its class. A pixel of several
        objects belongs to the first, which is the best. Pixels to ignore are 65535.

        Raises:
            InputError: there are more objects than values.
        """
        merged = self.label_map(entry)
        numbers = np.zeros(merged.shape, np.uint16)
        number = 0
        for cell in sorted(self.masks(entry), key=lambda cell: int(cell["class_id"])):
            own = merged == cell["class_id"]
            for item in instance_cells(cell):
                number += 1
                if number > _MOST_OBJECTS:
                    raise InputError(
                        f"{entry.uri} has more than {_MOST_OBJECTS:,} objects, which a 16-bit map "
                        "cannot hold: export coco instead"
                    )
                numbers[own & (numbers == 0) & decode_rle(item["rle"])] = number
        numbers[merged == self.ignore_index] = np.iinfo(np.uint16).max
        return numbers

    def _cascade_cells(self, entry: Entry) -> list[Mapping[str, Any]]:
        """Return the cascade's mask cells, without classes that were corrected or rejected."""
        standing = self.reviews.standing(entry.image_id, self.class_ids.values())
        replaced = {i for i, decision in standing.items() if decision.verdict != "accepted"}
        return [c for c in self._cells(entry, "cascade") if c["class_id"] not in replaced]

    def _cells(self, entry: Entry, method: str) -> Sequence[Mapping[str, Any]]:
        row = self.output.row(entry.shard, entry.row, _MASK_COLUMNS, self._row_groups)
        while len(self._row_groups) > _CACHED_ROW_GROUPS:
            self._row_groups.popitem(last=False)
        return masks_of(row, self.class_ids, method)
