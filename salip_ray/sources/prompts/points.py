"""Group points of tables by the objects that they are on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from salip_ray.errors import InputError
from salip_ray.schema import Point
from salip_ray.sources.prompts.files import Read, points_of


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row of a table of prompts.

    Attributes:
        at: the row, for messages.
        image: name of the image.
        slice: index of the slice; None for an image.
        label: the class, or None.
        numbers: of the box or point.
        object: what groups the points of an object; "" if the table does not say.
        positive: whether a point is on the object.
    """

    at: str
    image: str
    slice: int | None
    label: str | None
    numbers: tuple[float, ...]
    object: str = ""
    positive: bool = True


@dataclass
class _Object:
    """The points of one object, or of all objects of a class in an image that are not grouped."""

    first: PromptRow
    inside: list[Point] = field(default_factory=list)
    outside: list[Point] = field(default_factory=list)


_Key: TypeAlias = tuple[str, int | None, str | None, str]


def read_points(rows: Iterable[PromptRow]) -> Read:
    """Yield the points of each object.

    Points of an image with the same ``object`` are of one object. Without it, each positive point
    is an object, and the others lie outside of all objects of their class in the image.

    Raises:
        InputError: an object has no positive point, or points of two classes.
    """
    objects: dict[_Key, _Object] = {}
    for row in rows:
        # The class of a named object is compared, not a part of its name.
        key = row.image, row.slice, None if row.object else row.label, row.object
        known = objects.setdefault(key, _Object(row))
        if row.label != known.first.label:
            raise InputError(
                f"{row.at} is of the class {row.label!r}, but object {row.object} of {row.image} "
                f"has the class {known.first.label!r}: give each object one class"
            )
        x, y = row.numbers
        (known.inside if row.positive else known.outside).append((x, y))
    for item in objects.values():
        first = item.first
        if not item.inside:
            raise InputError(f"{first.at} is on no object: each needs a point with positive = 1")
        groups = [item.inside] if first.object else [[point] for point in item.inside]
        for inside in groups:
            yield (
                first.image,
                first.slice,
                replace(points_of(inside, item.outside), label=first.label),
            )
