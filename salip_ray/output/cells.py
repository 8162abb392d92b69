"""The nested cells of a committed row: masks, ranking and outcomes, written and read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from salip_ray.output.masks import (
    Rle,
    area,
    bbox_xywh,
    component_rles,
    decode_rle,
    encode_rle,
)
from salip_ray.schema import (
    Candidate,
    ClassMask,
    ClipScores,
    Instance,
    Mask,
    Outcome,
    ProposedMask,
    SamScores,
    Selection,
)


def pack_masks(items: Sequence[ClassMask]) -> list[dict[str, Any]]:
    """Return the cell ``masks``: dense masks become RLEs, missing figures NaN."""
    cells = []
    for item in items:
        rle = encode_rle(item.mask)
        clip, sam, proposed = item.clip, item.sam, item.proposed
        cells.append(
            {
                "method": item.method,
                "label": item.label,
                "class_id": item.class_id,
                "rle": rle,
                "bbox": bbox_xywh(rle),
                "area": area(rle),
                "clip_score": _or_nan(clip.score if clip else None),
                "clip_margin": _or_nan(clip.margin if clip else None),
                "clip_probability": _or_nan(clip.probability if clip else None),
                "presence": _or_nan(clip.presence if clip else None),
                "predicted_iou": _or_nan(sam.predicted_iou if sam else None),
                "stability_score": _or_nan(sam.stability if sam else None),
                "candidate_ids": list(item.candidate_ids),
                "prompt_boxes": [list(box) for box in item.prompt_boxes],
                "proposed": encode_rle(proposed.mask) if proposed else None,
                "agreement": _or_nan(proposed.agreement if proposed else None),
                "confidence": _or_nan(item.confidence),
                "instances": [pack_instance(instance) for instance in item.instances],
            }
        )
    return cells


def pack_components(mask: Mask, confidence: float | None = None) -> list[dict[str, Any]]:
    """Return the components of a mask that no prompt made as the cell ``instances``.

    The list is empty if the mask has only one.
    """
    parts = component_rles(mask)
    return [_instance_cell(rle, confidence=confidence) for rle in parts] if parts[1:] else []


def pack_instance(item: Instance) -> dict[str, Any]:
    """Return an item of ``instances`` of the cell ``masks``."""
    return _instance_cell(encode_rle(item.mask), item.candidate_id, item.sam, item.confidence)


def _instance_cell(
    rle: Rle,
    candidate_id: int | None = None,
    sam: SamScores | None = None,
    confidence: float | None = None,
) -> dict[str, Any]:
    return {
        "candidate_id": candidate_id,
        "rle": rle,
        "bbox": bbox_xywh(rle),
        "area": area(rle),
        "predicted_iou": _or_nan(sam.predicted_iou if sam else None),
        "stability_score": _or_nan(sam.stability if sam else None),
        "confidence": _or_nan(confidence),
    }


def _or_nan(figure: float | None) -> float:
    return math.nan if figure is None else figure


def read_mask(cell: Mapping[str, Any]) -> ClassMask:
    """Return the mask in an item of the column ``masks`` of a row, without its instances."""
    return ClassMask(
        method=cell["method"],
        label=cell["label"],
        class_id=cell["class_id"],
        mask=decode_rle(cell["rle"]),
        sam=_read_sam_scores(cell),
        candidate_ids=tuple(cell.get("candidate_ids") or ()),
        prompt_boxes=tuple(tuple(box) for box in cell.get("prompt_boxes") or ()),
        clip=_read_clip_scores(cell),
        proposed=_read_proposed(cell),
        confidence=_figure(cell, "confidence"),
    )


def instance_cells(cell: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the objects of an item of the column ``masks``, the best first.

    They are its ``instances``, or the item itself if it is one object, or if the output is of an
    older version, which stores no instances.
    """
    return cell.get("instances") or [cell]


def _read_sam_scores(cell: Mapping[str, Any]) -> SamScores | None:
    if (predicted_iou := _figure(cell, "predicted_iou")) is None:
        return None
    stability = _figure(cell, "stability_score")
    return SamScores(predicted_iou, math.nan if stability is None else stability)


def _read_clip_scores(cell: Mapping[str, Any]) -> ClipScores | None:
    if (score := _figure(cell, "clip_score")) is None:
        return None
    names = ("clip_margin", "clip_probability", "presence")
    return ClipScores(score, *(_figure(cell, name) for name in names))


def _read_proposed(cell: Mapping[str, Any]) -> ProposedMask | None:
    rle, agreement = cell.get("proposed"), _figure(cell, "agreement")
    return None if rle is None or agreement is None else ProposedMask(decode_rle(rle), agreement)


def _figure(cell: Mapping[str, Any], name: str) -> float | None:
    """Return a figure of a row; None if it is NaN, null, or unknown to the row's schema version."""
    value = cell.get(name)
    return None if value is None or math.isnan(value) else float(value)


def pack_ranking(
    candidates: Sequence[Candidate], selections: Sequence[Selection]
) -> list[dict[str, Any]]:
    """Return the cell ``ranking``: retrieved candidates of each class, then runners-up."""
    by_id = {candidate.id: candidate for candidate in candidates}
    cells = []
    for class_id in dict.fromkeys(item.class_id for item in selections):
        chosen = [item for item in selections if item.class_id == class_id]
        ranked = [(item.candidate_id, item.clip.score, True) for item in chosen]
        ranked += [(item.candidate_id, item.score, False) for item in chosen[0].runners_up]
        for identity, score, retrieved in ranked:
            candidate = by_id[identity]
            cells.append(
                {
                    "label": chosen[0].label,
                    "class_id": class_id,
                    "candidate_id": identity,
                    "retrieved": retrieved,
                    "clip_score": score,
                    "predicted_iou": candidate.predicted_iou,
                    "stability_score": candidate.stability_score,
                    "box": list(candidate.box),
                }
            )
    return cells


def pack_outcomes(items: Sequence[Outcome]) -> list[dict[str, str]]:
    """Return the cell ``outcomes``."""
    return [asdict(item) for item in items]
