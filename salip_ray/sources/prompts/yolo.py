"""Read boxes from YOLO's text files: one per image, one line per box or outline."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from salip_ray.errors import InputError
from salip_ray.schema import Box
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.prompts.files import GivenBox, Read, as_text, read_bytes

_NAMES_FILES = ("data.yaml", "classes.txt")
_LARGEST = 1.5  # a share of the image; a prediction may reach a little beyond it


def read_yolo(fs: Any, path: str, names: Sequence[str], shown: str) -> Read:
    """Yield the boxes of YOLO's text files: boxes, or outlines, of which the boxes are taken.

    Classes are named in ``data.yaml`` or ``classes.txt``, in the folder or above it; else they are
    the numbers of the task's classes. Of poses (``kpt_shape`` in ``data.yaml``), the box is taken.

    Raises:
        InputError: a line is neither.
    """
    classes, poses = _read_names(fs, path, shown)
    for name in names:
        below = name[len(path) :].lstrip("/")
        if posixpath.basename(name) in _NAMES_FILES:
            continue
        lines = as_text(read_bytes(fs, name), f"{shown}/{below}").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                identity, *numbers = line.split()
                label = _class_of(float(identity), classes)
                box = _box(list(map(float, numbers[:4] if poses else numbers)))
            except ValueError as error:
                reason = str(error) if isinstance(error, _LineError) else "numbers are needed"
                raise InputError(
                    f"line {number} of {below} in {shown} is no box of YOLO ({reason}): "
                    f"{line[:80]!r}"
                ) from None
            yield posixpath.splitext(below)[0], None, GivenBox(label, box, relative=True)


class _LineError(ValueError):
    """A line cannot be used, for a reason that is told to the user."""


def _class_of(number: float, classes: Mapping[int, str]) -> str | int:
    if not number.is_integer() or number < 0:
        raise _LineError("its class must be 0, 1, 2, ...")
    if not classes:
        return int(number)
    if int(number) not in classes:
        raise _LineError(f"its class has no name: {len(classes)} have one")
    return classes[int(number)]


def _box(values: Sequence[float]) -> Box:
    """Return left, top, right and bottom of a box or an outline."""
    if any(abs(value) > _LARGEST and math.isfinite(value) for value in values):
        raise _LineError("shares of the image are needed, not pixels")
    if len(values) in {4, 5}:  # a prediction has its confidence at the end
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        raise _LineError("a class, then x, y, width, height, or x, y of 3 points or more")
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _read_names(fs: Any, path: str, shown: str) -> tuple[Mapping[int, str], bool]:
    """Return the names of the classes by number, none if there is no list, and whether of poses."""
    poses = False
    for folder in (path, posixpath.dirname(path), posixpath.dirname(posixpath.dirname(path))):
        for name in _NAMES_FILES:
            file = posixpath.join(folder, name)
            if not fs.isfile(file):
                continue
            text = as_text(read_bytes(fs, file), f"{shown} ({name})")
            if suffix(file) == ".txt":
                lines = enumerate(text.splitlines())
                return {at: line.strip() for at, line in lines if line.strip()}, poses
            try:
                content = yaml.safe_load(text) or {}
                names = content.get("names")
                poses = poses or bool(content.get("kpt_shape"))
                if names is None:
                    continue
                listed = names if isinstance(names, Mapping) else dict(enumerate(names))
                if isinstance(names, str):
                    raise TypeError("names must be a list")
                return {int(key): str(value).strip() for key, value in listed.items()}, poses
            except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"{file} has no usable list of names of classes: {reason}"
                ) from None
    return {}, poses
