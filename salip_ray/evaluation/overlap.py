"""Overlap of two masks.

Both figures are NaN if both masks are empty: nothing can overlap, and neither 0 nor 1 would be
right. Means leave such images out and count them.
"""

from __future__ import annotations

import math

import numpy as np

from salip_ray.schema import Mask


def dice(prediction: Mask, reference: Mask) -> float:
    """Return Dice's coefficient of two masks [H, W]: 2 |A and B| / (|A| + |B|).

    Raises:
        ValueError: a mask is not bool of shape [H, W], or the shapes differ.
    """
    check_masks(prediction, reference)
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(prediction & reference) / total if total else math.nan


def iou(prediction: Mask, reference: Mask) -> float:
    """Return the intersection over union of two masks [H, W]: |A and B| / |A or B|.

    Raises:
        ValueError: a mask is not bool of shape [H, W], or the shapes differ.
    """
    check_masks(prediction, reference)
    union = np.count_nonzero(prediction | reference)
    return np.count_nonzero(prediction & reference) / union if union else math.nan


def check_masks(prediction: Mask, reference: Mask) -> None:
    """Raise ValueError unless both are bool masks of one shape [H, W]."""
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.ndim != 2 or mask.dtype != np.bool_:
            raise ValueError(
                f"the {name} must be a bool mask of shape [H, W], "
                f"found {mask.dtype} {list(mask.shape)}"
            )
    # NumPy would broadcast [1, W] against [H, W] to a meaningless figure.
    if prediction.shape != reference.shape:
        raise ValueError(
            f"the prediction is {prediction.shape[0]} x {prediction.shape[1]} (height x width), "
            f"the reference {reference.shape[0]} x {reference.shape[1]}"
        )
