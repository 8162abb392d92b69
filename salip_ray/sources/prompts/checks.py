"""Check boxes as a file has them against the classes of the task, and their units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from salip_ray.errors import InputError
from salip_ray.sources.prompts.files import GivenBox


def label_of(label: str | int | None, known: Sequence[str], shown: str) -> str:
    """Return the class that a box belongs to."""
    if isinstance(label, int):
        if 0 <= label < len(known):
            return known[label]
        raise InputError(
            f"{shown} have the class number {label}, but the task has {len(known)} classes "
            f"({', '.join(known)}): name them in classes.txt or data.yaml"
        )
    if label is None and len(known) == 1:
        return known[0]
    if label is None:
        raise InputError(
            f"{shown} have a prompt without a class, and the task has several "
            f"({', '.join(known)}): add a column label, or give them as --candidates with "
            "--set propose.model=none, and CLIP chooses their classes"
        )
    if label not in known:
        raise InputError(
            f"{shown} have the class {label!r}, but the task has {', '.join(known)}: give "
            "a task with that class, or rename it"
        )
    return label


def refuse_shares(boxes: Iterable[GivenBox], shown: str) -> None:
    """Raise InputError if boxes in pixels are shares of the image, all of them from 0 to 1."""
    given = [box for box in boxes if not box.relative]
    if not given:
        return
    if all(-1 <= value <= 1 for box in given for value in box.values) and any(
        not value.is_integer() for box in given for value in box.values
    ):
        raise InputError(
            f"all numbers of {shown} lie between 0 and 1, so they are shares of the image: "
            "give pixels"
        )
