"""X-AnyLabeling: JSON files with polygons and scores, next to the images (:mod:`.sidecars`)."""

from __future__ import annotations

from typing import Any

from salip_ray.datasets.index import ClassFigures, json_figure
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.review.tools import sidecars
from salip_ray.review.tools.polygons import outlines
from salip_ray.schema import Mask

_VERSION = "4.2.1"  # of the format


def export(
    labels: PseudoLabels,
    location: str,
    *,
    copy: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> int:
    """Write a folder for X-AnyLabeling; see :func:`salip_ray.review.tools.sidecars.export`.

    It has no masks. Its polygons have the pixels of a mask (:mod:`.polygons`).
    """
    return sidecars.export(
        labels,
        location,
        format_name="xanylabeling",
        fields={"version": _VERSION, "checked": False},
        draw=_shapes,
        copy=copy,
        storage_options=storage_options,
    )


def _shapes(label: str, mask: Mask, figures: ClassFigures | None) -> list[dict[str, Any]]:
    score = None if figures is None else json_figure(figures.confidence, 3)
    return [
        {
            "label": label,
            "score": score,
            "points": points,
            "group_id": None,
            "description": "",
            "difficult": False,
            "shape_type": "polygon",
            "flags": {},
            "attributes": {},
            "kie_linking": [],
        }
        for points in outlines(mask)
    ]
