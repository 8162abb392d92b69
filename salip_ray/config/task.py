"""The section ``task``: what to label."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from salip_ray.config.base import Fraction, Positive, Section

TopK = Positive | Literal["all"]


class ClassSpec(Section):
    """One class of a task: its id in label maps, its sentences, and its k."""

    label: str
    class_id: Positive
    sentences: tuple[str, ...]
    top_k: TopK

    def most(self, count: int) -> int:
        """Return how many of ``count`` candidates the class may have."""
        return count if self.top_k == "all" else self.top_k


class TaskConfig(Section):
    """What to label.

    ``prompts`` maps each class to its sentences; in a file it may be the path of a SaLIP prompt
    JSON. Classes get the ids 1, 2, ... in that order. ``top_k`` is a number of candidates, ``all``
    for objects that come in numbers (all that reach ``retrieve.min_score``), or a mapping of class
    to either. ``min_area`` and ``max_area`` bound the area of a candidate; both are exclusive, and
    are a fraction of the working image (up to 1) or a number of its pixels (above 1).

    ``distractors`` have the form of ``prompts``: classes that a candidate may show instead. They
    compete if ``retrieve.scoring`` is ``softmax`` and are never labelled. A distractor with the
    name of a class is that class and does not compete with it, so several tasks can share a list.
    ``companions`` maps a class to the distractors that occur only next to it (a fragment of it, a
    structure around it): they compete for the candidate, but count as presence of the class. With
    the bundled CLIP and ``softmax``, a task that names no distractors gets all other classes that
    the CLIP was taught.

    ``signs`` maps a class to those of its companions that only an image of the class shows: a
    ventricle is a sign of a brain, a skull is not. With them the confidence of a label also tells
    whether the class is there at all. If ``retrieve.scoring`` is ``softmax``, a class whose label
    has a confidence below ``min_confidence`` is left empty.

    With ``layered`` a pixel of several classes belongs to the last of them alone, as in a label map
    that was painted in the order of ``prompts``: first the head, then the brain in it. No two
    classes then get the same candidate, and none is covered to 90 % by a candidate of a later
    class. Without, masks overlap, and in a label map the class with the highest score has the
    pixel.

    ``tuned_on`` are the ids of the images that a search used to choose the recipe. They are
    labelled, but no evaluation counts them.
    """

    name: str = Field(min_length=1)
    prompts: dict[str, tuple[str, ...]] = Field(min_length=1)
    distractors: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    companions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    signs: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    top_k: TopK | dict[str, TopK] = 1
    min_area: float = Field(default=0.0, ge=0.0)
    max_area: float = Field(default=1.0, gt=0.0)
    min_confidence: Fraction = 0.0
    layered: bool = False
    tuned_on: tuple[str, ...] = ()

    @field_validator("prompts", "distractors")
    @classmethod
    def _sentences_exist(cls, prompts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for label, sentences in prompts.items():
            if not label.strip():
                raise ValueError("a class has an empty name")
            if not sentences or not all(sentence.strip() for sentence in sentences):
                raise ValueError(f"class {label!r} has no sentences, or an empty one")
        if len(prompts) > 65_535:
            raise ValueError(f"{len(prompts)} classes do not fit a 16-bit label map")
        return prompts

    @model_validator(mode="after")
    def _consistent(self) -> TaskConfig:
        if isinstance(self.top_k, dict) and (unknown := set(self.top_k) - set(self.prompts)):
            raise ValueError(
                f"top_k names {sorted(unknown)}, but the classes are {sorted(self.prompts)}"
            )
        for label, names in self.companions.items():
            if label not in self.prompts:
                raise ValueError(
                    f"companions names {label!r}, but the classes are {sorted(self.prompts)}"
                )
            if unknown := set(names) - {spec.label for spec in self.competitors}:
                raise ValueError(
                    f"companions of {label!r} names {sorted(unknown)}, which task.distractors lacks"
                )
        for label, names in self.signs.items():
            if unknown := set(names) - set(self.companions.get(label, ())):
                raise ValueError(
                    f"signs of {label!r} names {sorted(unknown)}, which its companions lack"
                )
        same_unit = (self.min_area <= 1) == (self.max_area <= 1)
        if same_unit and self.min_area >= self.max_area:
            raise ValueError(f"min_area {self.min_area} is not below max_area {self.max_area}")
        return self

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """Return the classes in the order of their ids."""
        k = self.top_k
        return tuple(
            ClassSpec(
                label=label,
                class_id=index,
                sentences=sentences,
                top_k=k.get(label, 1) if isinstance(k, dict) else k,
            )
            for index, (label, sentences) in enumerate(self.prompts.items(), start=1)
        )

    @property
    def competitors(self) -> tuple[ClassSpec, ...]:
        """Return the distractors that are not classes of the task, with ids above theirs."""
        others = {k: v for k, v in self.distractors.items() if k not in self.prompts}
        return tuple(
            ClassSpec(label=label, class_id=index, sentences=sentences, top_k=1)
            for index, (label, sentences) in enumerate(others.items(), start=len(self.prompts) + 1)
        )

    def area_limits(self, height: int, width: int) -> tuple[float, float]:
        """Return ``(min, max)`` in pixels of a working image; both bounds are exclusive.

        With ``min_area`` 0 every non-empty mask passes; a ``max_area`` of exactly 1 is no limit.
        """
        return limits_in_pixels(self.min_area, self.max_area, height * width)


def limits_in_pixels(min_area: float, max_area: float, pixels: int) -> tuple[float, float]:
    """Return the limits of an area in pixels: numbers up to 1 are fractions of ``pixels``."""
    low = min_area * pixels if min_area <= 1 else min_area
    high = max_area * pixels if max_area <= 1 else max_area
    return low, math.inf if max_area == 1 else high
