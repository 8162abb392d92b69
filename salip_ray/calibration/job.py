"""Calibrate an output: fit its confidences on images with references, and store the fit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from salip_ray.calibration.fit import Example, Fit, fit_class, why_no_fit
from salip_ray.errors import InputError
from salip_ray.evaluation.coco_references import CocoReferences
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.output.calibration import FIGURES, Calibrations, ClassFit
from salip_ray.output.layout import CALIBRATION
from salip_ray.output.lease import held
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.locations import normalise, public_uri
from salip_ray.sources.references import References

_COLUMNS = (
    *("image_id", "volume"),
    *(f"masks.list.element.{name}" for name in ("method", "label", *FIGURES)),
)


@dataclass(frozen=True)
class Calibrated:
    """What was fitted.

    Attributes:
        fits: by class label.
        refused: why each of the other classes was not fitted.
        images: ids of the images that were fitted on.
    """

    fits: Mapping[str, Fit]
    refused: Mapping[str, str]
    images: frozenset[str]


def calibrate(
    labels: LabelOutput,
    references: References | CocoReferences,
    location: str,
    *,
    images: int | None = None,
) -> Calibrated:
    """Fit the confidence of each class, and write ``calibration.json`` to the output.

    An earlier calibration is replaced. The shards do not change.

    Args:
        labels: the output.
        references: the reference masks, or the objects of a COCO file.
        location: of the references, for the record.
        images: fit on at most so many images, chosen by their ids; the others can be scored. A
            volume counts as one image and is never divided.

    Raises:
        InputError: no class can be fitted.
        OutputError: the output cannot be written, or (LeaseError) is being written.
    """
    if "cascade" not in labels.methods:
        raise InputError(f"{labels.uri} has no labels of the mode cascade, which have a confidence")
    stored = replace(labels, calibrations=None)
    examples, used = _examples(stored, references, images)
    fits = {label: fit_class(of_class) for label, of_class in examples.items()}
    done = {label: fit for label, fit in fits.items() if fit is not None}
    refused = {label: why_no_fit(examples[label]) for label, fit in fits.items() if fit is None}
    if not done:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in refused.items())
        raise InputError(
            f"no class of {labels.uri} can be fitted to {public_uri(normalise(location))}: "
            f"{reasons}"
        )
    content = Calibrations(
        public_uri(normalise(location)),
        used,
        {label: _class_fit(fit) for label, fit in done.items()},
    )
    with held(labels.store) as lease:
        lease.require_owner()
        labels.store.write(CALIBRATION, content.to_bytes())
    return Calibrated(done, refused, used)


def _examples(
    labels: LabelOutput, references: References | CocoReferences, limit: int | None
) -> tuple[dict[str, list[Example]], frozenset[str]]:
    """Return the labels of known Dice of each class, and the ids of their images."""
    evaluation = evaluate_output(labels, references, surfaces=False)
    dice = {
        (score.image_id, score.label): score.dice
        for score in evaluation.scores
        if score.method == "cascade" and not math.isnan(score.dice)
    }
    measured = {image for image, _ in dice}
    groups: dict[str, set[str]] = defaultdict(set)
    for score in evaluation.scores:
        groups[score.volume or score.image_id].add(score.image_id)
    # Ids are hashes, so the first ones are a random choice that is the same each time. All slices
    # of a volume are used: others would be scored by a fit that has seen their neighbours.
    usable = sorted((of_group for of_group in groups.values() if of_group & measured), key=min)
    chosen = frozenset().union(*usable[:limit])
    examples: dict[str, list[Example]] = {spec.label: [] for spec in labels.classes}
    for row in labels.rows(columns=_COLUMNS):
        if row["image_id"] not in chosen:
            continue
        for cell in row["masks"] or ():
            known = dice.get((row["image_id"], cell["label"]))
            if cell["method"] == "cascade" and known is not None:
                figures = tuple(
                    math.nan if cell[name] is None else float(cell[name]) for name in FIGURES
                )
                group = row["volume"] or row["image_id"]
                examples[cell["label"]].append(Example(group, figures, known))
    return examples, chosen


def _class_fit(fit: Fit) -> ClassFit:
    quality: dict[str, Any] = {"labels": fit.labels, "images": fit.groups}
    for name, figures in (("before", fit.before), ("after", fit.after)):
        if figures is not None:
            quality[name] = {key: getattr(figures, key).to_json() for key in asdict(figures)}
    return ClassFit(fit.figures, fit.model, quality)
