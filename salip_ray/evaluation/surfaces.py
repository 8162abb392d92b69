"""Distances between the outlines of two masks: HD95 and NSD.

Both are in pixels, because a photograph has no millimetres. Overlap forgives a ragged outline of a
large organ; these figures do not. They equal those of MONAI 1.6 (tests hold its values).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from salip_ray.evaluation.overlap import check_masks
from salip_ray.schema import Mask

TOLERANCE = 2.0
"""Distance in pixels up to which NSD counts two outlines as the same."""


def hd95(prediction: Mask, reference: Mask) -> float:
    """Return the 95th percentile of the Hausdorff distance of two masks [H, W], in pixels.

    The larger of the two directions counts. NaN if either mask is empty.

    Raises:
        ValueError: a mask is not bool of shape [H, W], or the shapes differ.
    """
    check_masks(prediction, reference)
    if not prediction.any() or not reference.any():
        return math.nan
    return max(float(np.quantile(way, 0.95)) for way in _distances(prediction, reference))


def nsd(prediction: Mask, reference: Mask, tolerance: float = TOLERANCE) -> float:
    """Return the normalised surface distance (surface Dice) of two masks [H, W].

    It is the share of both outlines within ``tolerance`` pixels of the other outline: 0 if only one
    mask is empty, NaN if both are.

    Raises:
        ValueError: a mask is not bool of shape [H, W], or the shapes differ.
    """
    check_masks(prediction, reference)
    if not prediction.any() or not reference.any():
        return 0.0 if prediction.any() or reference.any() else math.nan
    return float(np.mean(np.concatenate(_distances(prediction, reference)) <= tolerance))


def _distances(prediction: Mask, reference: Mask) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the distance of each outline pixel to the other outline, in both directions."""
    union = prediction | reference
    rows, columns = (np.flatnonzero(union.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    one, other = (_outline(mask[box]) for mask in (prediction, reference))
    return _to_nearest(one, other), _to_nearest(other, one)


def _outline(mask: Mask) -> Mask:
    # Pixels beyond the border count as background: an organ that it cuts has an outline there.
    return mask & ~np.asarray(ndimage.binary_erosion(mask))


def _to_nearest(outline: Mask, other: Mask) -> npt.NDArray[np.float64]:
    distances = np.asarray(ndimage.distance_transform_edt(~other), np.float64)
    return distances[outline]
