"""The slices of volumes, collected from the shards, with their labels as reviewed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc

from salip_ray.datasets.exports.cases import digest
from salip_ray.datasets.index import ClassFigures, known
from salip_ray.datasets.reviews import Decision, Reviews
from salip_ray.datasets.selection import LabelLimits
from salip_ray.errors import OutputError
from salip_ray.output.cells import read_mask
from salip_ray.output.masks import LabelMap, decode_rle, ignore_value, label_map
from salip_ray.output.reader import LabelOutput
from salip_ray.schema import Mask
from salip_ray.wording import counted

NO_LIMITS = LabelLimits()
_COLUMNS = ("image_id", "height", "width", "status", "masks", "volume", "slice")
_BATCH = 65_536  # rows of the manifest that are Python objects at once
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """One slice of a volume: the id of its row, its file, and its index in it (None: the file)."""

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
        rows: the row of each slice, by slice number.
    """

    name: str
    sources: tuple[Source, ...]
    rows: dict[int, Row] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """The number of slices without labels because they are error rows."""
        return sum(row["status"] == "error" for row in self.rows.values())


@dataclass(frozen=True)
class VolumeLabels:
    """The labels of an output by one method, as an export of volumes writes them.

    Decisions of reviewers are about the labels of the cascade, so they change no other method.

    Attributes:
        output: the output.
        method: whose masks.
        limits: labels below them are left out, unless a reviewer accepted them.
    """

    output: LabelOutput
    method: str = "cascade"
    limits: LabelLimits = NO_LIMITS

    @cached_property
    def reviews(self) -> Reviews:
        """The decisions about the output."""
        return Reviews.of(self.output)

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """Class ids by label."""
        return {spec.label: spec.class_id for spec in self.output.classes}

    @property
    def ignore_index(self) -> int:
        """The value of voxels that a reviewer marked to ignore."""
        return ignore_value(len(self.class_ids))

    def describe(self, format_name: str, **settings: Any) -> dict[str, Any]:
        """Return what an export is made of, for ``export.json``."""
        decided = {
            image_id: {i: asdict(decision) for i, decision in self._standing(image_id).items()}
            for image_id in sorted(self.reviews.decisions)
        }
        return {
            "format": format_name,
            "labels": self.output.uri,
            "classes": self.class_ids,
            "method": self.method,
            **asdict(self.limits),
            "decisions": f"on {counted(len(decided), 'image')}, {digest(decided)}",
            **settings,
            "fingerprint": self.output.run["fingerprint"],
        }

    def masks(self, row: Row) -> dict[int, Mask]:
        """Return the masks [H, W] of a row by class id; corrected ones as people drew them."""
        masks = {cell["class_id"]: decode_rle(cell["rle"]) for cell in self._cells(row)}
        drawn = self._drawn(row)
        if drawn is not None:
            for class_id in set(np.unique(drawn).tolist()) & set(self.class_ids.values()):
                masks[class_id] = drawn == class_id
        return masks

    def label_map(self, row: Row) -> LabelMap:
        """Return the label map [H, W] of a row, made as the run makes that of the cascade."""
        masks = [replace(read_mask(cell), method="cascade") for cell in self._cells(row)]
        merged = label_map(masks, row["height"], row["width"], n_classes=len(self.class_ids))
        drawn = self._drawn(row)
        if drawn is not None:
            merged[drawn > 0] = drawn[drawn > 0]
        return merged

    def dropped(self, row: Row) -> int:
        """Return how many labels of a row are below the limits."""
        cells = [cell for cell in row["masks"] or () if cell["method"] == self.method]
        replaced = self._replaced(self._standing(row["image_id"]))
        return sum(c["class_id"] not in replaced for c in cells) - len(self._cells(row))

    def _cells(self, row: Row) -> list[Mapping[str, Any]]:
        """Return the mask cells of the method that are neither replaced nor below a limit."""
        standing = self._standing(row["image_id"])
        replaced = self._replaced(standing)
        pixels = row["height"] * row["width"]
        cells = []
        for cell in row["masks"] or ():
            if cell["method"] != self.method or cell["class_id"] in replaced:
                continue
            figures = ClassFigures(
                confidence=known(cell.get("confidence")),
                presence=known(cell.get("presence")),
                area=known(cell.get("area")),
                reviewed=cell["class_id"] in standing,
            )
            if self.limits.failed_by(figures, pixels) is None:
                cells.append(cell)
        return cells

    def _standing(self, image_id: str) -> Mapping[int, Decision]:
        if self.method != "cascade":
            return {}
        return self.reviews.standing(image_id, self.class_ids.values())

    def _drawn(self, row: Row) -> LabelMap | None:
        return self.reviews.drawn(self._standing(row["image_id"]), self.ignore_index)

    @staticmethod
    def _replaced(standing: Mapping[int, Decision]) -> set[int]:
        return {i for i, decision in standing.items() if decision.verdict != "accepted"}


def labelled_volumes(output: LabelOutput, *, single: bool = False) -> Iterator[LabelledVolume]:
    """Yield the volumes of an output, each as soon as its last slice was read.

    Args:
        output: the output.
        single: yield images that are in no volume, too, as volumes of one slice.

    Raises:
        OutputError: the manifest is missing. Raised after the last volume: slices of a volume are
            not committed yet.
    """
    pending = {name: LabelledVolume(name, sources) for name, sources in _sources(output, single)}
    for row in output.rows(columns=_COLUMNS):
        name = row["volume"] or row["image_id"]
        volume = pending.get(name)
        if volume is None:
            continue
        volume.rows[row["slice"] or 0] = row
        if len(volume.rows) == len(volume.sources):
            yield pending.pop(name)
    if pending:
        name, volume = next(iter(pending.items()))
        raise OutputError(
            f"{counted(len(pending), 'volume')} not complete (the first, {name}, has "
            f"{len(volume.rows)} of {counted(len(volume.sources), 'slice')}): run the label "
            "command again to resume it, then export again"
        )


def _sources(output: LabelOutput, single: bool) -> Iterator[tuple[str, tuple[Source, ...]]]:
    by_volume: dict[str, list[Source]] = {}
    manifest = output.manifest().select(["image_id", "uri", "index", "volume", "slice"])
    if not single:
        manifest = manifest.filter(pc.is_valid(manifest["volume"]))
    for batch in manifest.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            source = Source(row["image_id"], row["uri"], row["index"], row["slice"] or 0)
            by_volume.setdefault(row["volume"] or row["image_id"], []).append(source)
    for name, sources in by_volume.items():
        yield name, tuple(sorted(sources, key=lambda source: source.slice))
