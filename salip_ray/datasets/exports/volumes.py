"""The slices of volumes, gathered from the shards that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from salip_ray.errors import OutputError
from salip_ray.output.masks import LabelMap, decode_rle, label_map, read_mask
from salip_ray.output.reader import LabelOutput

_COLUMNS = ("image_id", "height", "width", "status", "masks", "volume", "slice")
_TOGETHER = 65_536  # rows of the manifest that are Python objects at once
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """One picture of a volume: its row's id, its file, and its index there (None: the file)."""

    image_id: str
    uri: str
    index: int | None
    slice: int


@dataclass
class LabelledVolume:
    """A volume whose slices are all committed.

    Attributes:
        name: the volume's id.
        sources: its slices, in order.
        rows: by place, the rows of the slices.
    """

    name: str
    sources: tuple[Source, ...]
    rows: dict[int, Row] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """How many slices have no label because they are error rows."""
        return sum(row["status"] == "error" for row in self.rows.values())


def about(format_name: str, labels: LabelOutput, **settings: Any) -> dict[str, Any]:
    """What an export of volumes is made of, for ``export.json``."""
    return {
        "format": format_name,
        "labels": labels.uri,
        "classes": {spec.label: spec.class_id for spec in labels.classes},
        **settings,
        "fingerprint": labels.run["fingerprint"],
    }


def labelled_volumes(labels: LabelOutput, *, lone: bool = False) -> Iterator[LabelledVolume]:
    """The volumes of an output, each as soon as its last slice was read.

    Args:
        labels: the output.
        lone: give images that are in no volume, too, as volumes of one slice.

    Raises:
        OutputError: the manifest is missing, or slices of a volume are not committed.
    """
    open_volumes = {name: LabelledVolume(name, found) for name, found in _sources(labels, lone)}
    for row in labels.rows(columns=_COLUMNS):
        name = row["volume"] or row["image_id"]
        volume = open_volumes.get(name)
        if volume is None:
            continue
        volume.rows[row["slice"] or 0] = row
        if len(volume.rows) == len(volume.sources):
            yield open_volumes.pop(name)
    if open_volumes:
        name, volume = next(iter(open_volumes.items()))
        raise OutputError(
            f"{len(open_volumes)} volumes are not complete, the first ({name}) has "
            f"{len(volume.rows)} of {len(volume.sources)} slices: run label again to go on"
        )


def _sources(labels: LabelOutput, lone: bool) -> Iterator[tuple[str, tuple[Source, ...]]]:
    found: dict[str, list[Source]] = {}
    places = labels.manifest().select(["image_id", "uri", "index", "volume", "slice"])
    if not lone:
        places = places.filter(pc.is_valid(places["volume"]))
    for batch in places.to_batches(max_chunksize=_TOGETHER):
        for row in batch.to_pylist():
            source = Source(row["image_id"], row["uri"], row["index"], row["slice"] or 0)
            found.setdefault(row["volume"] or row["image_id"], []).append(source)
    for name, sources in found.items():
        yield name, tuple(sorted(sources, key=lambda source: source.slice))


def class_masks(row: Row, method: str) -> dict[int, npt.NDArray[np.bool_]]:
    """The masks of one method by class id."""
    return {
        mask["class_id"]: decode_rle(mask["rle"])
        for mask in row["masks"] or ()
        if mask["method"] == method
    }


def row_label_map(row: Row, method: str, n_classes: int) -> LabelMap:
    """The label map of a row by any method, made as the run makes that of the cascade."""
    masks = [
        replace(read_mask(mask), method="cascade")
        for mask in row["masks"] or ()
        if mask["method"] == method
    ]
    return label_map(masks, row["height"], row["width"], n_classes=n_classes)
