"""Score the rows of a run against reference masks.

An image without a score is listed with the reason: it is an error row, it has no reference, or it
was used to choose the recipe or to fit confidences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from salip_ray.errors import InputError, OutputError
from salip_ray.evaluation.instances import (
    InstanceScore,
    instances_of_cell,
    instances_of_mask,
    match,
)
from salip_ray.evaluation.overlap import dice, iou
from salip_ray.evaluation.scores import Evaluation, Score, Unscored
from salip_ray.evaluation.stages import StageDice, failed_stage
from salip_ray.evaluation.surfaces import hd95, nsd
from salip_ray.evaluation.volume_surfaces import SurfaceCollector
from salip_ray.output.masks import Rle, decode_rle
from salip_ray.schema import Mask

#: Returns the reference mask [H, W] of each class of a row, or None if its image has none.
ReferenceOf = Callable[[Mapping[str, Any]], Mapping[str, Mask] | None]
#: Returns the objects of each class of a row whose reference was just returned, as RLEs.
ObjectsOf = Callable[[Mapping[str, Any]], Mapping[str, Sequence[Rle]]]


def score_rows(
    rows: Iterable[Mapping[str, Any]],
    reference_of: ReferenceOf,
    *,
    labels: Sequence[str],
    methods: Sequence[str],
    surfaces: bool = True,
    tuned_on: Collection[str] = (),
    calibrated_on: Collection[str] = (),
    why_without: Callable[[Mapping[str, Any]], str | None] | None = None,
    slices: Mapping[str, int] | None = None,
    slice_mm: Callable[[Mapping[str, Any]], float | None] = lambda _row: None,
    objects_of: ObjectsOf | None = None,
) -> Evaluation:
    """Score each class and method of each row.

    A class without a mask is an empty label: its Dice is 0 unless the reference is empty, too.

    Args:
        rows: rows with the columns of :data:`salip_ray.schema.LABEL_SCHEMA`.
        reference_of: returns the reference masks of a row.
        labels: the classes of the run.
        methods: the methods of the run.
        surfaces: whether to compute HD95 and NSD, which take most of the time.
        tuned_on: ids of images that chose the recipe and must not test it.
        calibrated_on: ids of images that confidences were fitted on.
        why_without: returns the reason of a row without a reference, if there is a special one.
        slices: the number of slices of each volume whose surfaces are computed in 3-D.
        slice_mm: returns the millimetres from slice to slice of the volume of a row whose reference
            was just returned; None if they are unknown.
        objects_of: returns the objects of a row; by default, they are the components of its
            reference masks.

    Raises:
        InputError: a reference has another size than its image.
    """
    scores: list[Score] = []
    stages: list[StageDice] = []
    instances: list[InstanceScore] = []
    unscored: list[Unscored] = []
    collector = SurfaceCollector(slices or {})
    for row in rows:
        name = (row["image_id"], row["uri"])
        slice_of: dict[str, Any] = {"volume": row.get("volume"), "slice": row.get("slice")}
        if row["status"] == "error":
            message = (row["error"] or {}).get("message") or ""
            unscored.append(Unscored(*name, "error", message, **slice_of))
            continue
        if row["image_id"] in tuned_on:
            unscored.append(Unscored(*name, "tuned_on", **slice_of))
            continue
        if row["image_id"] in calibrated_on:
            unscored.append(Unscored(*name, "calibrated_on", **slice_of))
            continue
        references = reference_of(row)
        if references is None:
            message = (why_without and why_without(row)) or ""
            unscored.append(Unscored(*name, "without_reference", message, **slice_of))
            continue
        shape = (row["height"], row["width"])
        cells = {(cell["method"], cell["label"]): cell for cell in row["masks"] or ()}
        objects = None if objects_of is None else objects_of(row)
        for label in labels:
            reference = references[label]
            if reference.shape != shape:
                raise InputError(
                    f"the reference of {row['uri']} is {_size(reference.shape)} (height x width), "
                    f"but the image is {_size(shape)}"
                )
            known = instances_of_mask(reference) if objects is None else objects[label]
            for method in methods:
                cell = cells.get((method, label))
                if cell is not None and tuple(cell["rle"]["size"]) != shape:
                    raise OutputError(
                        f"the mask of {label!r} of {row['uri']} is {_size(cell['rle']['size'])} "
                        f"(height x width), but the image is {_size(shape)}: salip-ray verify "
                        "names what is damaged"
                    )
                shown = instances_of_cell(cell)
                pairs = match(shown, known)
                instances.append(
                    InstanceScore(*name, label, method, len(shown), len(known), *pairs, **slice_of)
                )
                mask = np.zeros(shape, np.bool_) if cell is None else decode_rle(cell["rle"])
                score = _score((*name, label, method), mask, reference, surfaces)
                if surfaces and row.get("volume") is not None:
                    collector.add(row, label, method, (mask, reference), slice_mm(row))
                scores.append(replace(score, **slice_of))
                if method == "cascade" and reference.any():
                    best = cells.get(("gt_sam", label))
                    withheld = cell is None and any(
                        entry["retrieved"] and entry["label"] == label
                        for entry in row.get("ranking") or ()
                    )
                    stages.append(
                        _stage_dice(name, label, cell, best, reference, score.dice, withheld)
                    )
    return Evaluation(
        tuple(scores),
        tuple(unscored),
        stages=tuple(stages),
        volume_surfaces=tuple(collector.figures),
        instances=tuple(instances),
    )


def _score(name: tuple[str, str, str, str], mask: Mask, reference: Mask, surfaces: bool) -> Score:
    tp = int(np.count_nonzero(mask & reference))
    fp, fn = (int(np.count_nonzero(whole)) - tp for whole in (mask, reference))
    return Score(
        *name,
        dice=dice(mask, reference),
        iou=iou(mask, reference),
        hd95=hd95(mask, reference) if surfaces else math.nan,
        nsd=nsd(mask, reference) if surfaces else math.nan,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=mask.size - tp - fp - fn,
    )


def _stage_dice(
    name: tuple[str, str],
    label: str,
    cascade: Mapping[str, Any] | None,
    best: Mapping[str, Any] | None,
    reference: Mask,
    refined: float,
    withheld: bool,
) -> StageDice:
    def of_proposed(cell: Mapping[str, Any] | None) -> float:
        rle = None if cell is None else cell.get("proposed")  # older rows have none
        return math.nan if rle is None else dice(decode_rle(rle), reference)

    picked, proposed = of_proposed(cascade), of_proposed(best)
    if not math.isnan(picked) and not math.isnan(proposed):
        proposed = max(proposed, picked)
    stage = failed_stage(proposed, picked, refined, withheld=withheld)
    return StageDice(*name, label, proposed, picked, refined, stage)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)
