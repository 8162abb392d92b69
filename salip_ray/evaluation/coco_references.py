"""Reference objects of a COCO file (``instances_*.json``), by image.

The mask of a class is the union of its objects. An image is found by its whole URI, or else by its
stem, like a reference mask; a slice of a volume also has its number, as ``slice`` of the image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from salip_ray.errors import InputError, SalipError
from salip_ray.output.masks import Rle, decode_rle, union_of
from salip_ray.schema import ImageRef, Mask, Size
from salip_ray.sources.coco_masks import coco_rle
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.locations import filesystem, is_remote, normalise, public_uri
from salip_ray.sources.prompts.files import slice_index
from salip_ray.sources.reference_files import image_key, whole_key
from salip_ray.sources.references import References
from salip_ray.sources.stores import describe_error

ImageKey = tuple[str, int | None]  #: whole URI or stem, and the number of a slice


@dataclass(frozen=True)
class ImageObjects:
    """The objects of one image: its height and width, and class and RLE of each object."""

    size: Size
    objects: tuple[tuple[str, Rle], ...]

    def by_label(self, labels: Sequence[str]) -> dict[str, list[Rle]]:
        """Return the RLEs of the objects of each class."""
        return {label: [rle for name, rle in self.objects if name == label] for label in labels}

    def mask(self, rles: Sequence[Rle]) -> Mask:
        """Return the union of objects, bool [H, W]."""
        return decode_rle(union_of(rles)) if rles else np.zeros(self.size, np.bool_)


@dataclass(frozen=True)
class CocoReferences:
    """The objects of a COCO file.

    Attributes:
        location: public URI of the file.
        images: the objects by image; the names are whole URIs or stems.
        shared: number of images of the run by stem, if several have it.
    """

    location: str
    images: Mapping[ImageKey, ImageObjects] = field(repr=False)
    shared: Mapping[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        location: str,
        labels: Sequence[str],
        storage_options: Mapping[str, Any] | None = None,
    ) -> CocoReferences:
        """Read a COCO file; objects of categories that are none of ``labels`` are left out.

        Raises:
            InputError: the file cannot be read, is no COCO file with masks, has none of the
                classes, or lists an image twice.
        """
        where = normalise(location)
        shown = public_uri(where)
        try:
            fs, path = filesystem(where, storage_options)
            data = fs.cat_file(path)
        except SalipError:
            raise
        except Exception as error:  # noqa: BLE001  (clients of stores raise many types)
            problem = describe_error(error, where)
            raise InputError(f"reference {shown} cannot be read: {problem}") from None
        return cls(shown, _read(data, labels, shown))

    def among(self, uris: Iterable[str]) -> CocoReferences:
        """Return the objects for the images of one run: a stem that several share is ambiguous."""
        stems = Counter(map(image_key, set(uris)))
        shared = {stem: count for stem, count in stems.items() if count > 1}
        return CocoReferences(self.location, self.images, shared)

    def find(self, image: ImageRef) -> ImageRef | None:
        """Return the file if it lists an image, else None."""
        return None if self.objects(image) is None else ImageRef(self.location)

    def ambiguity(self, image: ImageRef) -> str | None:
        """Return why the objects of an image's stem are not its objects; None if there are none."""
        stem = image_key(image.uri)
        if self.objects(image) is not None or (stem, image.index) not in self.images:
            return None
        return (
            f"{self.shared[stem]} images have the name of one image of the COCO file: list whole "
            "paths in file_name to tell them apart"
        )

    def objects(self, image: ImageRef) -> ImageObjects | None:
        """Return the objects of an image, or None if the file does not list it."""
        if own := self.images.get((whole_key(image.uri), image.index)):
            return own
        stem = image_key(image.uri)
        return None if stem in self.shared else self.images.get((stem, image.index))


def open_references(
    location: str, labels: Sequence[str], storage_options: Mapping[str, Any] | None = None
) -> References | CocoReferences:
    """Open reference masks, or a COCO file (``.json``).

    Args:
        location: a folder of masks, an ``index.csv`` or a COCO file.
        labels: the classes to score.
        storage_options: fsspec options of the location.

    Raises:
        InputError: the location cannot be read.
    """
    if suffix(location) == ".json":
        return CocoReferences.open(location, labels, storage_options)
    return References.open(location, storage_options)


def _read(data: bytes, labels: Sequence[str], shown: str) -> dict[ImageKey, ImageObjects]:
    at = "its images or categories"
    try:
        content = json.loads(data)
        names = {item["id"]: str(item["name"]) for item in content["categories"]}
        images = {item["id"]: item for item in content["images"]}
        sizes = {key: _size(item) for key, item in images.items()}
        objects: dict[Any, list[tuple[str, Rle]]] = {key: [] for key in images}
        for number, item in enumerate(content["annotations"], start=1):
            at = f"annotation {number}"
            label = names[item["category_id"]]
            if label in labels:
                rle = coco_rle(item["segmentation"], sizes[item["image_id"]])
                objects[item["image_id"]].append((label, rle))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # The text of other errors is only the key or the value.
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
        raise InputError(
            f"reference {shown} is no COCO file of instances: {at} cannot be used ({reason})"
        ) from None
    if not set(names.values()) & set(labels):
        raise InputError(
            f"reference {shown} has the categories {', '.join(sorted(set(names.values())))}, but "
            f"the classes are {', '.join(labels)}: rename one of them"
        )
    by_key: dict[ImageKey, ImageObjects] = {}
    for identity, item in images.items():
        if not isinstance(item.get("file_name"), str):
            raise InputError(f"reference {shown} has an image without a file_name: {identity!r}")
        name = item["file_name"]
        whole = is_remote(name) or name.startswith(("/", "~"))
        index = slice_index(item.get("slice"), f"image {identity!r} of reference {shown}")
        key = (whole_key(normalise(name)) if whole else image_key(name), index)
        if key in by_key:
            raise InputError(
                f"reference {shown} lists two images with the name {key[0]!r}: give whole paths in "
                "file_name"
            )
        by_key[key] = ImageObjects(sizes[identity], tuple(objects[identity]))
    return by_key


def _size(image: Mapping[str, Any]) -> Size:
    height, width = int(image["height"]), int(image["width"])
    if height < 1 or width < 1:
        raise ValueError(f"an image has the height {height} and the width {width}")
    return height, width
