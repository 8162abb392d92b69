"""Reference masks, as class masks and as boxes: what GT-SAM and the evaluation look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.config import ClassSpec
from salip_ray.rows import Box, Mask

MIN_SHARE = 0.005


def class_references(
    reference: npt.NDArray[np.integer[Any]], classes: Sequence[ClassSpec]
) -> dict[str, Mask]:
    """The mask [H, W] of each class in a reference image [H, W].

    With one class every value above 0 is it; with several the values are class ids.
    """
    if len(classes) == 1:
        return {classes[0].label: reference > 0}
    return {spec.label: reference == spec.class_id for spec in classes}


def reference_boxes(mask: Mask, min_share: float = MIN_SHARE) -> list[Box]:
    """A box (xyxy, inclusive) round each part of a mask that covers ``min_share`` of the image.

    Parts are 8-connected; their order is that of their first pixel, row by row.
    """
    _count, _parts, stats, _centres = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    return [
        (float(x), float(y), float(x + width - 1), float(y + height - 1))
        for x, y, width, height, area in stats[1:]  # the first is the background
        if area >= min_share * mask.size
    ]
