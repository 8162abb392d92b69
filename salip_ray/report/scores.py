"""Dice and its kin as a report shows them, from an evaluation at hand or one in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from salip_ray.errors import InputError
from salip_ray.evaluation import Evaluation, as_json
from salip_ray.evaluation.intervals import nan_mean

#: Figures of a mean, by their keys in ``evaluation.json``, and how a person calls them.
FIGURES = {"dice": "Dice", "dice_3d": "3-D Dice", "iou": "IoU", "hd95": "HD95", "nsd": "NSD"}


@dataclass(frozen=True)
class Scores:
    """Means by class and method, as ``evaluation.json`` has them, and Dice by image.

    Where volumes were scored, ``dice_3d`` in a mean is that of their Dice in 3-D.
    ``of_images`` maps image id, label and method to a Dice, NaN where both masks are empty.
    """

    means: Mapping[str, Mapping[str, Mapping[str, Any]]]
    of_images: Mapping[tuple[str, str, str], float] = field(repr=False)

    @classmethod
    def of(cls, evaluation: Evaluation) -> Scores:
        """The scores of an evaluation."""
        return cls.parse(as_json(evaluation).encode(), "evaluation")

    @classmethod
    def parse(cls, data: bytes, name: str) -> Scores:
        """Read the content of an ``evaluation.json``; ``name`` is for messages.

        Raises:
            InputError: it is not one.
        """
        try:
            content = json.loads(data)
            means = {str(k): dict(v) for k, v in content["classes"].items()}
            dice = {
                (item["image_id"], item["label"], item["method"]): _number(item["dice"])
                for item in content["images"]
            }
            _add_volumes(means, content.get("volumes", ()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{name} is not an evaluation.json of salip-ray evaluate") from None
        return cls(means, dice)

    @property
    def figures(self) -> tuple[str, ...]:
        """Which of :data:`FIGURES` the means have."""
        means = [mean for methods in self.means.values() for mean in methods.values()]
        return tuple(key for key in FIGURES if any(mean.get(key) is not None for mean in means))

    def know(self, image_ids: Iterable[str]) -> bool:
        """Whether any of some images was scored."""
        scored = {image_id for image_id, _, _ in self.of_images}
        return not scored.isdisjoint(image_ids)


def _add_volumes(
    means: Mapping[str, Mapping[str, dict[str, Any]]], volumes: Iterable[Mapping[str, Any]]
) -> None:
    found: dict[tuple[str, str], list[float]] = {}
    for volume in volumes:
        of_method = found.setdefault((volume["label"], volume["method"]), [])
        of_method.append(_number(volume["dice"]))
    for label, methods in means.items():
        for method, mean in methods.items():
            dice = nan_mean(found.get((label, mean.get("variant", method)), ()))
            if not math.isnan(dice):
                mean["dice_3d"] = dice


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
