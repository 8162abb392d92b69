"""Read prompts from COCO files, and what the readers of other forms share.

Every reader yields the name of an image, the index of its slice (None for an image), and a box or
the points of an object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from fsspec.implementations.local import LocalFileSystem
from pycocotools import mask as coco

from salip_ray.errors import InputError
from salip_ray.schema import Box, Point, Points, Size
from salip_ray.sources.coco_masks import coco_rle
from salip_ray.sources.local_files import open_regular

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class GivenBox:
    """A box as a file has it.

    Attributes:
        label: its class, by name or number; None if the file has none.
        values: x0, y0, x1, y1 in pixels, inclusive, or, if ``relative``, left, top, right and
            bottom edge as shares of the image.
        relative: whether they are shares.
        size: height and width of the image that the box is of, if the file has them.
        points: of one object, instead of the box, which is then the one around them.
        rle: of the mask that the box is around, if it is a candidate with an outline.
    """

    label: str | int | None
    values: Box
    relative: bool = False
    size: Size | None = None
    points: Points | None = None
    rle: Mapping[str, Any] | None = None

    def labelled(self, label: str) -> GivenBox:
        """Return the box with the name of its class."""
        return replace(self, label=label)

    def in_pixels(self, size: Size) -> Box:
        """Return x0, y0, x1, y1 in pixels of an image of height and width ``size``, inclusive.

        A box without an area has x1 < x0 or y1 < y0.
        """
        if not self.relative:
            return self.values
        height, width = size
        left, top, right, bottom = self.values
        # Edges of 1/w steps lie between pixels; six decimals are less exact than that.
        x0, y0, x1, y1 = (
            round(share * side, 2)
            for share, side in zip((left, top, right, bottom), (width, height) * 2, strict=True)
        )
        return x0, y0, last_pixel(x0, x1), last_pixel(y0, y1)

    def to_json(self) -> list[Any]:
        """Return the box as JSON-ready data."""
        box = [self.label, list(self.values), self.relative, self.size]
        points = None if self.points is None else [self.points.inside, self.points.outside]
        if self.rle is not None:
            return [*box, points, dict(self.rle)]
        # Without points as before they were known: jobs record the digest.
        return box if points is None else [*box, points]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> GivenBox:
        """Return the box of :meth:`to_json`."""
        label, (x0, y0, x1, y1), relative, size, *more = data
        points, rle = [*more, None, None][:2]
        return cls(
            label,
            (x0, y0, x1, y1),
            relative,
            None if size is None else (size[0], size[1]),
            Points(*(tuple((x, y) for x, y in side) for side in points)) if points else None,
            rle,
        )


def last_pixel(first: float, end: float) -> float:
    """Return the last pixel of a side that ends at ``end``: a side of less than a pixel has one."""
    return max(first, end - 1) if end > first else end - 1


Read: TypeAlias = Iterator[tuple[str, int | None, GivenBox]]


def read_bytes(fs: Any, path: str) -> bytes:
    """Return the content of a file.

    Raises:
        NotRegularError: it is a FIFO or a device, which may never end.
        OSError: it cannot be read.
    """
    local = isinstance(fs, LocalFileSystem)
    with open_regular(path) if local else fs.open(path, "rb") as file:
        data: bytes = file.read()
    return data


def as_text(data: bytes, shown: str) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with its mark.

    Raises:
        InputError: it is in another encoding.
    """
    try:
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{shown} are not UTF-8: save the file in UTF-8") from None


def slice_index(value: object, at: str) -> int | None:
    """Return the index of a slice; None if the cell is empty.

    Raises:
        InputError: it is no whole number from 0.
    """
    if value is None or value == "" or value != value:  # NaN is not itself
        return None
    try:
        index = float(value)  # type: ignore[arg-type]
        if index < 0 or not index.is_integer() or isinstance(value, bool):
            raise ValueError(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{at} has the slice {value!r}: count slices from 0") from None
    return int(index)


def read_coco(data: bytes, shown: str, *, outlines: bool = False) -> Read:
    """Yield the boxes of a COCO file of object detection or instances, or its keypoints.

    An annotation without a box has that of its ``segmentation``, or else its labelled keypoints,
    which are points on one object.

    Args:
        data: the file.
        shown: its name, for messages.
        outlines: also take the masks of annotations that have a ``segmentation``.

    Raises:
        InputError: it is no such file, a field is missing, or two images or categories have one id.
    """
    problem = f"{shown} are no COCO file"
    text = as_text(data, shown)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{problem}: {error}") from None
    if isinstance(content, list):
        raise InputError(
            f"{problem}, but a list (of results?): give one with images, categories and annotations"
        )
    images = _by_id(content, "images", "file_name", problem)
    labels = _by_id(content, "categories", "name", problem)
    for number, item in enumerate(_items(content, "annotations", problem), start=1):
        at = f"{problem}: annotation {number}"
        image = images.get(_id(item, "image_id", at))
        if image is None:
            raise InputError(f"{at} has the image_id {item['image_id']!r}, which is no image's id")
        category = labels.get(_id(item, "category_id", at))
        if category is None:
            missing = item["category_id"]
            raise InputError(f"{at} has the category_id {missing!r}, which is no category's id")
        size = _size_of(image)
        index = slice_index(item.get("slice"), f"annotation {number} of {shown}")
        given = _keypoints(item, at)
        if given is None:
            x, y, width, height = _coco_box(item, size, at)
            given = GivenBox(None, (x, y, last_pixel(x, x + width), last_pixel(y, y + height)))
            if outlines and item.get("segmentation"):
                given = replace(given, rle=_rle(item["segmentation"], size, at))
        yield image["file_name"], index, replace(given, label=category["name"].strip(), size=size)


def _items(content: object, name: str, problem: str) -> list[Mapping[str, Any]]:
    items = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise InputError(f"{problem}: it has no list {name!r}")
    return items


def _id(item: Mapping[str, Any], name: str, at: str) -> int | str:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"{at} has no usable {name}, found {value!r}")
    return value


def _by_id(
    content: object, name: str, text: str, problem: str
) -> dict[int | str, Mapping[str, Any]]:
    """Return images or categories by id; each has the field ``text``."""
    items: dict[int | str, Mapping[str, Any]] = {}
    for number, item in enumerate(_items(content, name, problem), start=1):
        at = f"{problem}: entry {number} of {name}"
        identity = _id(item, "id", at)
        if not isinstance(item.get(text), str) or not item[text].strip():
            raise InputError(f"{at} has no {text}")
        if identity in items:
            raise InputError(f"{at} has the id {identity!r} of an earlier one: ids must be unique")
        items[identity] = item
    return items


def _size_of(image: Mapping[str, Any]) -> Size | None:
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None


def points_of(inside: Sequence[Point], outside: Sequence[Point] = ()) -> GivenBox:
    """Return the prompt of the points of one object, without its class."""
    points = Points(tuple(inside), tuple(outside))
    return GivenBox(None, points.box, points=points)


def _keypoints(item: Mapping[str, Any], at: str) -> GivenBox | None:
    """Return the labelled keypoints of an annotation; None if it has a box, an outline, or none."""
    values = item.get("keypoints")
    if item.get("bbox") or item.get("segmentation") or not values:
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    triples = [numbers[start : start + 3] for start in range(0, len(numbers), 3)]
    labelled = [(x, y) for x, y, visible in triples if visible > 0] if len(numbers) % 3 == 0 else []
    if not labelled:
        raise InputError(
            f"{at} has no usable keypoints: they must be x, y, v of each, one with v > 0 at least"
        )
    return points_of(labelled)


def _coco_box(item: Mapping[str, Any], size: Size | None, at: str) -> Box:
    """Return x, y, width and height of an annotation."""
    box, outline = item.get("bbox"), item.get("segmentation")
    try:
        if isinstance(box, list) and box:
            x, y, width, height = map(float, box)
        elif isinstance(outline, list) and outline:
            values = [float(value) for part in outline for value in part]
            if any(len(part) % 2 or len(part) < 6 for part in outline):
                raise InputError(f"{at} has a polygon that is no list of x, y of 3 points or more")
            x, y = min(values[::2]), min(values[1::2])
            width, height = max(values[::2]) - x, max(values[1::2]) - y
        elif isinstance(outline, Mapping):
            x, y, width, height = map(float, coco.toBbox(_rle(outline, size, at)))
        else:
            raise InputError(f"{at} has neither a bbox nor a segmentation")
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        shown = str(box if box else outline)[:80]
        raise InputError(
            f"{at} has no usable bbox: it must be x, y, width, height; found {shown}"
        ) from None
    return x, y, width, height


def _rle(outline: Any, size: Size | None, at: str) -> dict[str, Any]:
    """Return a checked RLE of an outline, of the size that it states if its image has none."""
    try:
        if size is None:
            stated = outline.get("size") if isinstance(outline, Mapping) else None
            if not isinstance(stated, list) or [type(side) for side in stated] != [int, int]:
                raise ValueError("its image needs height and width")
            size = stated[0], stated[1]
        return coco_rle(outline, size)
    except ValueError as error:
        raise InputError(f"{at}: {error}") from None
