"""LabelMe: its JSON files with pixel masks, next to the images (:mod:`.sidecars`)."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from salip_ray.datasets.exports.pixels import png
from salip_ray.datasets.index import ClassFigures, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.review.tools import sidecars
from salip_ray.review.tools.shared import box_of
from salip_ray.schema import Mask

_VERSION = "5.5.0"  # of the format; masks need 5.3


def export(
    labels: PseudoLabels,
    location: str,
    *,
    copy: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write a folder for LabelMe; see :func:`salip_ray.review.tools.sidecars.export`."""
    return sidecars.export(
        labels,
        location,
        format_name="labelme",
        fields={"version": _VERSION},
        draw=_shapes,
        copy=copy,
        storage_options=storage_options,
    )


def _shapes(label: str, mask: Mask, figures: ClassFigures | None) -> list[dict[str, Any]]:
    left, top, right, bottom = box_of(mask)
    crop = mask[top : bottom + 1, left : right + 1].astype(np.uint8) * 255
    score = None if figures is None else json_figure(figures.confidence, 3)
    shape: dict[str, Any] = {
        "label": label,
        "points": [[left, top], [right, bottom]],
        "group_id": None,
        "description": "" if score is None else f"confidence {score}",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(png(crop)).decode("ascii"),
    }
    return [shape]
