"""Compare the student with its teacher on references that neither learnt from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from salip_ray.datasets.images import Images
from salip_ray.errors import ConfigError, InputError
from salip_ray.evaluation import Evaluation
from salip_ray.evaluation.intervals import mean_interval
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.output.masks import encode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.references import References
from salip_ray.student.network import Student

METHOD = "student"
TEACHER = "cascade"


def score_student(
    student: Student,
    labels: LabelOutput,
    references: References,
    *,
    trained_on: Collection[str] = (),
    image_options: Mapping[str, Any] | None = None,
    surfaces: bool = True,
) -> Evaluation:
    """Score the labels of an output, and those of the student on the same images.

    The evaluation has the methods of the output, and ``student``.

    Args:
        student: the student.
        labels: the teacher's labels of images with references.
        references: the reference masks.
        trained_on: ids of the images that the student learnt from.
        image_options: fsspec options of the images.
        surfaces: whether to compute HD95 and NSD.

    Raises:
        ConfigError: the output has other classes than the student.
        InputError: an image is one that the student learnt from, or cannot be read.
    """
    known = {spec.label: spec.class_id for spec in labels.classes}
    if other := {k: v for k, v in student.class_ids.items() if known.get(k) != v}:
        raise ConfigError(
            f"{labels.uri} has the classes {known}, but the student also learnt {other}: "
            "give an output of the same task"
        )
    images = Images("", None, labels.image_config, dict(image_options or {}))

    require_unseen(labels, references, trained_on)

    def cells(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        masks = student(images.load(labels.image_ref(row), row["uri"]))
        return [
            {"method": METHOD, "label": label, "rle": encode_rle(mask)}
            for label, mask in masks.items()
        ]

    return evaluate_output(labels, references, surfaces=surfaces, others={METHOD: cells})


def require_unseen(
    labels: LabelOutput, references: References, trained_on: Collection[str]
) -> None:
    """Check that a student did not learn from an image of a test.

    Args:
        labels: the teacher's labels of the test.
        references: the reference masks; images without one, or with an ambiguous one, are not
            scored.
        trained_on: ids of the images that the student learns from.

    Raises:
        InputError: it learns from an image that would be scored.
    """
    references = references.among(labels.manifest(["uri"])["uri"].to_pylist())
    unscored = labels.tuned_on | labels.calibrated_on
    for row in labels.rows(columns=["image_id", "uri", "slice", "status"]):
        scored = row["status"] != "error" and row["image_id"] not in unscored
        if scored and row["image_id"] in trained_on and references.find(labels.image_ref(row)):
            raise InputError(
                f"the student learns from image {row['uri']} of {labels.uri}: "
                "test it on other images"
            )


def comparison(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return student minus teacher by class: the mean difference of Dice, and its interval.

    Images without a Dice of both (nothing there and nothing labelled) are left out.
    """
    dice = {(s.label, s.image_id, s.method): s.dice for s in evaluation.scores}
    by_class: dict[str, dict[str, Any]] = {}
    for label in dict.fromkeys(score.label for score in evaluation.scores):
        pairs = [
            (value, dice[label, image_id, TEACHER])
            for (of, image_id, method), value in dice.items()
            if of == label and method == METHOD and (label, image_id, TEACHER) in dice
        ]
        pairs = [(float(one), float(two)) for one, two in pairs if not math.isnan(one + two)]
        gains = [one - other for one, other in pairs]
        low, high = mean_interval(gains)
        n = len(gains)
        by_class[label] = {
            "n": n,
            METHOD: _mean([one for one, _ in pairs]),
            TEACHER: _mean([other for _, other in pairs]),
            "difference": _mean(gains),
            "interval": None if n < 2 else [low, high],
            "better_on": sum(bool(gain > 0) for gain in gains),
        }
    return by_class


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
