"""What the round trips share: images for a tool, and decisions in label maps that come back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from salip_ray.datasets.exports import palette
from salip_ray.datasets.exports.cases import case_name, is_plain_file
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.exports.orientation import any_turned, has_8_bits
from salip_ray.datasets.exports.pixels import image_png
from salip_ray.datasets.exports.unreadable import Unreadable
from salip_ray.datasets.images import Images
from salip_ray.datasets.index import ClassFigures, Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Reviews, Verdict
from salip_ray.datasets.samples import SampleReader
from salip_ray.errors import InputError
from salip_ray.output.masks import LabelMap
from salip_ray.output.reader import LabelOutput
from salip_ray.review.decision_file import output_digest
from salip_ray.review.records import ImageReview
from salip_ray.schema import ImageRef, Mask
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.locations import is_remote

#: The name of pixels to ignore in a tool.
IGNORED = "pixels to ignore"
_LINKED = frozenset({".png", ".jpg", ".jpeg"})  # every tool opens them


@dataclass(frozen=True)
class ToolImages:
    """Where a tool finds the images: where they are, or next to the export as PNGs.

    Files that tools cannot open (DICOM, slices, members of archives), images that are stored
    turned, and images with hidden names are always written as PNGs.

    Attributes:
        labels: the labels.
        destination: of the export.
        copy: write all images as PNGs.
        skipped: remembers images that cannot be read.
        folder: of the images in the export; empty, or with a slash at its end.
    """

    labels: PseudoLabels
    destination: Destination
    copy: bool
    skipped: Unreadable
    folder: str = "images/"

    def path(self, entry: Entry) -> str | None:
        """Return the location of an image, or None if it cannot be read.

        The image is written to the export if it cannot stay where it is.
        """
        if not self.copy and self._can_stay(entry):
            return self.labels.reader.images.location(entry.uri)
        name = self._written(entry)
        return None if name is None else f"{self.destination}/{name}"

    def name(self, entry: Entry) -> str | None:
        """Return the path of an image in the export, or None if it cannot be read.

        A PNG or JPEG file of 8 bits on the disk of the export is linked, another image is written.
        """
        linked = f"{self.folder}{case_name(entry)}{suffix(entry.uri)}"
        if not self.copy and self._can_link(entry):
            target = Path(self.labels.reader.images.location(entry.uri))
            if self.destination.has(linked) or self.destination.link(linked, target):
                return linked
        return self._written(entry)

    def _written(self, entry: Entry) -> str | None:
        name = f"{self.folder}{case_name(entry)}.png"
        if not self.destination.has(name):
            pixels = self.skipped.image(entry)
            if pixels is None:
                return None
            self.destination.write(name, image_png(pixels))
        return name

    def _can_stay(self, entry: Entry) -> bool:
        images = self.labels.reader.images
        location = images.location(entry.picture.uri)
        return is_plain_file(entry) and not any_turned([location], images.storage_options)

    def _can_link(self, entry: Entry) -> bool:
        location = self.labels.reader.images.location(entry.uri)
        if is_remote(location) or suffix(entry.uri) not in _LINKED:
            return False
        return self._can_stay(entry) and has_8_bits(Path(location))


def class_masks(
    labels: PseudoLabels, entry: Entry
) -> Iterator[tuple[str, Mask, ClassFigures | None]]:
    """Yield the label, the mask [H, W] and the figures of each class that an image shows.

    Pixels to ignore are the last; they have no figures.
    """
    label_map = labels.label_map(entry)
    names = {class_id: label for label, class_id in labels.class_ids.items()}
    names[labels.ignore_index] = IGNORED
    for class_id in np.unique(label_map[label_map > 0]).tolist():
        label = names[class_id]
        yield label, label_map == class_id, entry.figures.get(label)


def colour_of(class_id: int) -> str:
    """Return the colour of a class, as #rrggbb."""
    colours = palette.colours()
    return "#{:02x}{:02x}{:02x}".format(*colours[min(class_id, palette.IGNORE)])


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom pixel of a mask [H, W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def origin(labels: PseudoLabels, entry: Entry) -> dict[str, Any]:
    """Return what leads from a task of a tool back to its image."""
    return {
        "salip_image_id": entry.image_id,
        "salip_output": output_digest(labels.output),
        "salip_classes": labels.class_ids,
    }


class Returned:
    """Turns label maps that a tool returns into decisions.

    Args:
        output: the output that was exported.
        classes: class ids by label, of the classes that the tool showed.
    """

    def __init__(self, output: LabelOutput, classes: Mapping[str, int]) -> None:
        self.classes = dict(classes)
        self._reviews = Reviews.of(output)
        # No image is read, so their locations may stay unknown.
        images = Images("", None, output.image_config, {})
        self._reader = SampleReader(output, self._reviews, self.classes, images)
        self._entries = {entry.image_id: entry for entry in _entries(output)}

    @property
    def ignore_index(self) -> int:
        """Return the value of pixels to ignore."""
        return self._reader.ignore_index

    def label_map(self, image_id: str) -> LabelMap:
        """Return the labels of an image as they are in the output now.

        Raises:
            ValueError: the output has no such image.
        """
        if image_id not in self._entries:
            raise ValueError(f"the output has no image {image_id}")
        return self._reader.label_map(self._entries[image_id])

    def rejected(self, image_id: str) -> ImageReview:
        """Return the rejection of all labels of an image."""
        return ImageReview(image_id, dict.fromkeys(self.classes.values(), "rejected"))

    @property
    def values(self) -> dict[str, int]:
        """Return the value of each label in a label map; pixels to ignore have one, too."""
        return {**self.classes, IGNORED: self.ignore_index}

    def corrected(
        self,
        image_id: str,
        after: LabelMap,
        *,
        accepted: bool | Collection[int],
        rejected: Collection[int] = (),
    ) -> ImageReview:
        """Return the decisions in a label map [H, W].

        Classes whose pixels changed are corrected, the others undecided.

        Args:
            image_id: of the image.
            after: the label map.
            accepted: ids of unchanged classes that a person accepted; True for all of them.
            rejected: ids of classes that a person rejected, changed or not.
        """
        before = self.label_map(image_id)
        if after.shape != before.shape:
            raise ValueError(
                f"the labels of image {image_id} are {after.shape[0]} x {after.shape[1]} (height "
                f"x width), but the image is {before.shape[0]} x {before.shape[1]}"
            )
        standing = self._reviews.standing(image_id, self.classes.values())
        verdicts: dict[int, Verdict] = {}
        for class_id in self.classes.values():
            drawn = class_id in standing and standing[class_id].verdict == "corrected"
            if class_id in rejected:
                verdicts[class_id] = "rejected"
            elif not np.array_equal(before == class_id, after == class_id):
                verdicts[class_id] = "corrected"
            elif accepted is True or (accepted and class_id in accepted):  # what was drawn stays
                verdicts[class_id] = "corrected" if drawn else "accepted"
        is_corrected = "corrected" in verdicts.values()
        return ImageReview(image_id, verdicts, after if is_corrected else None)


def _entries(output: LabelOutput) -> Iterator[Entry]:
    """Yield the images that have a size, without their locations."""
    for shard in output.shards:
        rows = output.shard_rows(shard, columns=("image_id", "height", "width", "status"))
        for number, row in enumerate(rows):
            if row["status"] == "error":
                continue
            yield Entry(
                image_id=row["image_id"],
                uri="",
                picture=ImageRef(""),
                volume=None,
                slice=None,
                height=row["height"],
                width=row["width"],
                shard=shard,
                row=number,
                status=row["status"],
                figures={},
            )


def classes_of(
    items: Sequence[Mapping[str, Any]], output: LabelOutput, source: object
) -> dict[str, int]:
    """Return the classes that an export showed, from what :func:`origin` wrote into its items.

    Raises:
        InputError: nothing leads back to an output, or to another one.
    """
    known = {spec.label: spec.class_id for spec in output.classes}
    classes: dict[str, int] | None = None
    for item in items:
        if not isinstance(item.get("salip_image_id"), str):
            raise InputError(f"{source} has an image without salip_image_id: export it again")
        if item.get("salip_output") != output_digest(output):
            raise InputError(f"{source} was exported from another output than {output.uri}")
        shown = item.get("salip_classes")
        if not isinstance(shown, dict) or not shown.items() <= known.items():
            raise InputError(f"{source} names the classes {shown}, but {output.uri} has {known}")
        if classes not in (None, shown):
            raise InputError(f"{source} mixes exports of different classes: import each by itself")
        classes = shown
    if classes is None:
        raise InputError(f"{source} has no image")
    return classes
