"""Read boxes from COCO, tables and YOLO's text files.

Every reader yields the name of an image, the index of its slice (None for an image), and a box.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml

from salip_ray.errors import InputError
from salip_ray.schema import Box, Size
from salip_ray.sources.formats.names import suffix

_CORNERS, _SIDES = ("x0", "y0", "x1", "y1"), ("x", "y", "width", "height")
_NAMES_FILES = ("data.yaml", "classes.txt")


@dataclass(frozen=True, slots=True)
class GivenBox:
    """A box as a file has it.

    Attributes:
        label: its class, by name or number; None if the file has none.
        values: x0, y0, x1, y1 in pixels, inclusive, or, if ``relative``, left, top, right and
            bottom edge as shares of the image.
        relative: whether they are shares.
    """

    label: str | int | None
    values: Box
    relative: bool = False

    def labelled(self, label: str) -> GivenBox:
        """Return the box with the name of its class."""
        return replace(self, label=label)

    def in_pixels(self, size: Size) -> Box:
        """Return x0, y0, x1, y1 in pixels of an image of height and width ``size``, inclusive."""
        if not self.relative:
            return self.values
        height, width = size
        left, top, right, bottom = self.values
        # Edges of 1/w steps lie between pixels; six decimals are less exact than that.
        x0, y0, x1, y1 = (
            round(share * side, 2)
            for share, side in zip((left, top, right, bottom), (width, height) * 2, strict=True)
        )
        return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)

    def to_json(self) -> list[Any]:
        """Return the box as JSON-ready data."""
        return [self.label, list(self.values), self.relative]


Read: TypeAlias = Iterator[tuple[str, int | None, GivenBox]]


def read_coco(data: bytes, shown: str) -> Read:
    """Yield the boxes of a COCO file of object detection or instances.

    Raises:
        InputError: it is no such file, or a field is missing.
    """
    try:
        content = json.loads(data)
        names = {item["id"]: str(item["file_name"]) for item in content["images"]}
        labels = {item["id"]: str(item["name"]) for item in content["categories"]}
        for number, item in enumerate(content["annotations"], start=1):
            at = f"annotation {number}"
            x, y, width, height = map(float, item["bbox"])
            box = x, y, x + width - 1, y + height - 1
            label = labels[item["category_id"]]
            yield names[item["image_id"]], item.get("slice"), GivenBox(label, box)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        where = locals().get("at", "its images or categories")
        reason = f"{type(error).__name__} {error}"
        raise InputError(
            f"prompts {shown} are no COCO file: {where} cannot be used ({reason})"
        ) from None


def read_table(data: bytes, kind: str, shown: str) -> Read:
    """Yield the boxes of a CSV or Parquet file.

    Its columns are ``image``; ``x0, y0, x1, y1`` (inclusive) or ``x, y, width, height``; ``label``
    and ``slice`` if needed.

    Raises:
        InputError: a column is missing, or a row has no image or box.
    """
    try:
        if kind == ".parquet":
            table = pq.read_table(io.BytesIO(data))
        else:
            types = {"image": pa.string(), "label": pa.string()}
            table = pa.csv.read_csv(
                io.BytesIO(data), convert_options=pa.csv.ConvertOptions(column_types=types)
            )
    except pa.ArrowException as error:
        raise InputError(f"prompts {shown} cannot be read: {error}") from None
    columns = set(table.column_names)
    corners = columns.issuperset(_CORNERS)
    if "image" not in columns or not (corners or columns.issuperset(_SIDES)):
        raise InputError(
            f"prompts {shown} need the columns image, and x0, y0, x1, y1 or x, y, width, height; "
            f"their columns are {', '.join(table.column_names)}"
        )
    for number, row in enumerate(table.to_pylist(), start=1):
        values = [row[name] for name in (_CORNERS if corners else _SIDES)]
        try:
            a, b, c, d = map(float, values)
        except (TypeError, ValueError):
            raise InputError(f"row {number} of prompts {shown} has no box: {values}") from None
        if not row["image"]:
            raise InputError(f"row {number} of prompts {shown} has no image: fill it in")
        box = (a, b, c, d) if corners else (a, b, a + c - 1, b + d - 1)
        label = row.get("label")
        yield row["image"], row.get("slice"), GivenBox(None if label is None else str(label), box)


def read_yolo(fs: Any, path: str, names: Sequence[str], shown: str) -> Read:
    """Yield the boxes of YOLO's text files: boxes, or outlines, of which the boxes are taken.

    Classes are named in ``data.yaml`` or ``classes.txt``, in the folder or above it; else they are
    the numbers of the task's classes.

    Raises:
        InputError: a line is neither.
    """
    classes = _yolo_classes(fs, path)
    for name in names:
        if posixpath.basename(name) in _NAMES_FILES:
            continue
        for number, line in enumerate(fs.cat_file(name).decode().splitlines(), start=1):
            if not line.strip():
                continue
            try:
                identity, *numbers = line.split()
                index = int(identity)
                label = classes[index] if classes else index
                box = _yolo_box([float(value) for value in numbers])
            except (ValueError, IndexError, KeyError):
                raise InputError(
                    f"line {number} of {posixpath.basename(name)} in prompts {shown} is no box of "
                    f"YOLO: {line[:80]!r}"
                ) from None
            yield posixpath.basename(name), None, GivenBox(label, box, relative=True)


def _yolo_box(values: Sequence[float]) -> Box:
    """Return left, top, right and bottom of a box or an outline."""
    if len(values) in {4, 5}:  # a prediction has its confidence at the end
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        raise ValueError(values)
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _yolo_classes(fs: Any, path: str) -> Sequence[str] | Mapping[int, str]:
    for folder in (path, posixpath.dirname(path), posixpath.dirname(posixpath.dirname(path))):
        for name in _NAMES_FILES:
            file = posixpath.join(folder, name)
            if not fs.isfile(file):
                continue
            text = fs.cat_file(file).decode()
            if suffix(file) == ".txt":
                return [line.strip() for line in text.splitlines() if line.strip()]
            names = (yaml.safe_load(text) or {}).get("names")
            if isinstance(names, Mapping):
                return {int(key): str(value) for key, value in names.items()}
            if isinstance(names, list):
                return [str(value) for value in names]
    return []
