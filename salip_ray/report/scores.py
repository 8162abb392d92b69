"""The scores that a report shows, from an evaluation or its file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from salip_ray.errors import InputError
from salip_ray.evaluation import Evaluation, as_json
from salip_ray.evaluation.intervals import nan_mean

#: Figures of a mean: key in ``evaluation.json`` -> name for people.
FIGURES = {"dice": "Dice", "dice_3d": "3-D Dice", "iou": "IoU", "hd95": "HD95", "nsd": "NSD"}


@dataclass(frozen=True)
class Scores:
    """Means by class and method, as in ``evaluation.json``, and the Dice of each image.

    Attributes:
        means: ``dice_3d`` of a mean is the mean 3-D Dice of the volumes, if there are any.
        of_images: Dice by image id, label and method; NaN if both masks are empty.
        objects: F1, PQ and numbers of objects by class and method, of the classes that have
            several objects in an image.
    """

    means: Mapping[str, Mapping[str, Mapping[str, Any]]]
    of_images: Mapping[tuple[str, str, str], float] = field(repr=False)
    objects: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Scores:
        """Return the scores of an evaluation."""
        return cls.parse(as_json(evaluation).encode(), "evaluation")

    @classmethod
    def parse(cls, data: bytes, name: str) -> Scores:
        """Return the scores in an ``evaluation.json``; ``name`` is for messages.

        Raises:
            InputError: the data is something else.
        """
        try:
            content = json.loads(data)
            means = {str(k): dict(v) for k, v in content["classes"].items()}
            dice = {
                (item["image_id"], item["label"], item["method"]): _number(item["dice"])
                for item in content["images"]
            }
            _add_volumes(means, content.get("volumes", ()))
            objects = _objects(means, content)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{name} is not an evaluation.json of salip-ray evaluate") from None
        return cls(means, dice, objects)

    def among(self, labels: Iterable[str]) -> Scores:
        """Return the scores of these classes only."""
        means = {label: self.means[label] for label in labels if label in self.means}
        objects = {label: self.objects[label] for label in means if label in self.objects}
        return Scores(means, self.of_images, objects)

    @property
    def figures(self) -> tuple[str, ...]:
        """Which of :data:`FIGURES` the means have."""
        means = [mean for methods in self.means.values() for mean in methods.values()]
        return tuple(key for key in FIGURES if any(mean.get(key) is not None for mean in means))

    def know(self, image_ids: Iterable[str]) -> bool:
        """Return True if any of these images was scored."""
        scored = {image_id for image_id, _, _ in self.of_images}
        return not scored.isdisjoint(image_ids)


def _add_volumes(
    means: Mapping[str, Mapping[str, dict[str, Any]]], volumes: Iterable[Mapping[str, Any]]
) -> None:
    by_method: dict[tuple[str, str], list[float]] = {}
    for volume in volumes:
        name = (volume["label"], volume["method"])
        by_method.setdefault(name, []).append(_number(volume["dice"]))
    for label, methods in means.items():
        for method, mean in methods.items():
            dice = nan_mean(by_method.get((label, mean.get("variant", method)), ()))
            if not math.isnan(dice):
                mean["dice_3d"] = dice


def _objects(
    means: Mapping[str, Mapping[str, Mapping[str, Any]]], content: Mapping[str, Any]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the figures of objects of the methods in the means, by class and method."""
    several = {
        item["label"]
        for item in content.get("objects", ())
        if max(item["labelled"], item["reference"]) > 1
    }
    objects: dict[str, dict[str, Mapping[str, Any]]] = {}
    for label in means:
        for method, mean in means[label].items():
            figures = content.get("instances", {}).get(label, {})
            if label in several and (of := figures.get(mean.get("variant", method))):
                objects.setdefault(label, {})[method] = of
    return objects


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
