"""Boxes of images that exist already, to prompt SAM with: read them, and find those of an image.

Four forms are read: a COCO file (``.json``), a table (``.csv`` or ``.parquet``), a folder of YOLO's
text files, and masks as references have them, whose components become boxes as GT-SAM's do. An
image is found by its whole URI, or else by its stem.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from salip_ray.config import ClassSpec
from salip_ray.errors import ImageError, InputError, SalipError
from salip_ray.schema import Box, ImageRef, Size
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.locations import filesystem, is_remote, normalise, public_uri
from salip_ray.sources.prompt_files import GivenBox, read_coco, read_table, read_yolo
from salip_ray.sources.reference_files import image_key, whole_key
from salip_ray.sources.references import References
from salip_ray.sources.stores import describe_error

ImageKey = tuple[str, int | None]  #: whole URI or stem, and the index of a slice


@dataclass(frozen=True)
class Prompts:
    """The boxes of a location, by image.

    Attributes:
        location: public URI.
        sha256: of all boxes and their classes, or of the names and sizes of masks.
        boxes: by image; the names are whole URIs or stems.
        masks: masks whose components are the boxes, instead of ``boxes``.
        shared: number of images of the input by stem, if several have it.
    """

    location: str
    sha256: str
    boxes: Mapping[ImageKey, tuple[GivenBox, ...]] = field(default_factory=dict, repr=False)
    masks: References | None = None
    shared: Mapping[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        location: str,
        classes: Sequence[ClassSpec],
        storage_options: Mapping[str, Any] | None = None,
    ) -> Prompts:
        """Read the boxes of a file or folder.

        Args:
            location: a file or folder, as described above.
            classes: of the task; a box of no class belongs to the only one.
            storage_options: of the location's store.

        Raises:
            InputError: the location cannot be read, names a class that the task lacks, or names no
                class although the task has several.
        """
        where = normalise(location)
        shown = public_uri(where)
        try:
            return cls._open(where, shown, classes, storage_options)
        except SalipError:
            raise
        except FileNotFoundError:
            raise InputError(f"prompts {shown} do not exist: check the path") from None
        except Exception as error:  # noqa: BLE001  (clients of stores raise many types)
            problem = describe_error(error, where)
            raise InputError(f"prompts {shown} cannot be read: {problem}") from None

    @classmethod
    def _open(
        cls,
        where: str,
        shown: str,
        classes: Sequence[ClassSpec],
        options: Mapping[str, Any] | None,
    ) -> Prompts:
        fs, path = filesystem(where, options)
        kind = suffix(where)
        if kind in {".json", ".csv", ".parquet"}:
            data = fs.cat_file(path)
            read = read_coco(data, shown) if kind == ".json" else read_table(data, kind, shown)
        else:
            names = sorted(name for name in fs.find(path) if suffix(name) == ".txt")
            if not names:
                return cls(shown, _digest_of_files(fs, path), masks=References.open(where, options))
            read = read_yolo(fs, path, names, shown)
        known = [spec.label for spec in classes]
        boxes: dict[ImageKey, list[GivenBox]] = {}
        for name, index, box in read:
            label = _label_of(box.label, known, shown)
            key = whole_key(normalise(name)) if _is_whole(name) else image_key(name)
            boxes.setdefault((key, index), []).append(box.labelled(label))
        if not boxes:
            raise InputError(f"prompts {shown} hold no box")
        frozen = {key: tuple(boxes[key]) for key in sorted(boxes, key=str)}
        text = json.dumps([[key, [box.to_json() for box in of]] for key, of in frozen.items()])
        return cls(shown, hashlib.sha256(text.encode()).hexdigest(), frozen)

    def among(self, uris: Iterable[str]) -> Prompts:
        """Return the boxes for the images of one run: a stem that several share is ambiguous."""
        unique = set(uris)
        if self.masks is not None:
            return Prompts(self.location, self.sha256, masks=self.masks.among(unique))
        stems = Counter(map(image_key, unique))
        shared = {stem: count for stem, count in stems.items() if count > 1}
        return Prompts(self.location, self.sha256, self.boxes, shared=shared)

    def unknown(self, uris: Iterable[str]) -> list[str]:
        """Return the names of images that have boxes, but are not among those of the input."""
        known: set[str] = set()
        for uri in uris:
            known |= {whole_key(uri), image_key(uri)}
        return sorted({name for name, _ in self.boxes if name not in known})

    def find(self, image: ImageRef) -> tuple[GivenBox, ...]:
        """Return the boxes of an image; none if it has none.

        Raises:
            ImageError: the boxes are listed by a stem that several images have.
        """
        if own := self.boxes.get((whole_key(image.uri), image.index)):
            return own
        stem = image_key(image.uri)
        by_stem = self.boxes.get((stem, image.index), ())
        if by_stem and stem in self.shared:
            raise ImageError(
                f"{self.shared[stem]} images have the stem {stem!r} of these prompts: list whole "
                "paths of images to tell them apart"
            )
        return by_stem


def boxes_in_image(boxes: Sequence[GivenBox], size: Size) -> list[tuple[str, Box]]:
    """Return class and box of each prompt: xyxy in pixels, inclusive, cut at the border.

    Args:
        boxes: of one image.
        size: its height and width.

    Raises:
        ImageError: a box lies outside of the image, or has no area.
    """
    placed = []
    for number, given in enumerate(boxes, start=1):
        x0, y0, x1, y1 = given.in_pixels(size)
        height, width = size
        shown = f"prompt {number} ({given.label}: {x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 < x0 or y1 < y0:
            raise ImageError(f"{shown} is no box: give x0, y0, x1, y1 with x0 <= x1 and y0 <= y1")
        if x1 < 0 or y1 < 0 or x0 > width - 1 or y0 > height - 1:
            raise ImageError(f"{shown} lies outside of the image of {width} x {height} pixels")
        box = max(0.0, x0), max(0.0, y0), min(width - 1.0, x1), min(height - 1.0, y1)
        placed.append((str(given.label), box))
    return placed


def _is_whole(name: str) -> bool:
    return is_remote(name) or name.startswith(("/", "~"))


def _label_of(label: str | int | None, known: Sequence[str], shown: str) -> str:
    """Return the class that a box belongs to."""
    if isinstance(label, int):
        if 0 <= label < len(known):
            return known[label]
        raise InputError(
            f"prompts {shown} have the class number {label}, but the task has {len(known)} classes "
            f"({', '.join(known)}): name them in classes.txt or data.yaml"
        )
    if label is None and len(known) == 1:
        return known[0]
    if label is None:
        raise InputError(
            f"prompts {shown} have a box without a class, and the task has several "
            f"({', '.join(known)}): add a column label"
        )
    if label not in known:
        raise InputError(
            f"prompts {shown} have the class {label!r}, but the task has {', '.join(known)}: give "
            "a task with that class, or rename it"
        )
    return label


def _digest_of_files(fs: Any, path: str) -> str:
    listed = fs.find(path, detail=True)
    sizes = [[name[len(path) :], listed[name].get("size")] for name in sorted(listed)]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
