"""Cleaner masks, by options of ``refine``: without holes and small components."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.cascade.interfaces import RefinedMasks
from salip_ray.config import RefineConfig
from salip_ray.schema import Mask


def clean(refined: RefinedMasks, config: RefineConfig) -> RefinedMasks:
    """Return masks [n, H, W] with ``refine.fill_holes`` and ``min_part`` applied."""
    masks = refined.masks
    if config.fill_holes:
        masks = np.stack([filled(mask) for mask in masks])
    if config.min_part > 0:
        masks = np.stack([without_small_parts(mask, config.min_part) for mask in masks])
    return RefinedMasks(masks, refined.predicted_iou, refined.stability)


def filled(mask: Mask) -> Mask:
    """Return the mask with its holes filled."""
    outlines, _hierarchy = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    solid: npt.NDArray[np.uint8] = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(solid, outlines, -1, 1, cv2.FILLED)
    return solid.astype(np.bool_)


def without_small_parts(mask: Mask, share: float) -> Mask:
    """Return the mask without 8-connected parts smaller than ``share`` of its largest part."""
    _count, parts, stats, _centres = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = 0  # the background
    large = areas >= max(1.0, share * areas.max())
    return np.asarray(large[parts])
