"""How far apart two outlines are: HD95 and NSD, as MONAI computes them.

Both are in pixels of the image, for a picture has no millimetres. Overlap forgives a ragged outline
of a large organ; these do not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from salip_ray.evaluation.overlap import check_masks
from salip_ray.schema import Mask

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 2.0
"""Pixels within which two outlines count as the same, for NSD."""


def hd95(prediction: Mask, reference: Mask) -> float:
    """The 95th percentile of the Hausdorff distance of two masks [H, W], in pixels.

    The larger of the two directions. NaN where either mask is empty: no outline, no distance.

    Raises:
        ValueError: a mask is not bool of shape [H, W], or their shapes differ.
    """
    check_masks(prediction, reference)
    if not prediction.any() or not reference.any():
        return math.nan
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    one, other = _cut_to_content(prediction, reference)
    with _monai_about_itself():
        found = compute_hausdorff_distance(one, other, include_background=True, percentile=95)
    return float(found)


def nsd(prediction: Mask, reference: Mask, tolerance: float = TOLERANCE) -> float:
    """The normalised surface distance (surface Dice) of two masks [H, W].

    The share of both outlines that lies within ``tolerance`` pixels of the other one; 0 where only
    one mask is empty, NaN where both are.

    Raises:
        ValueError: a mask is not bool of shape [H, W], or their shapes differ.
    """
    check_masks(prediction, reference)
    if not prediction.any() or not reference.any():
        return 0.0 if prediction.any() or reference.any() else math.nan
    from monai.metrics.surface_dice import compute_surface_dice

    one, other = _cut_to_content(prediction, reference)
    with _monai_about_itself():
        found = compute_surface_dice(one, other, [tolerance], include_background=True)
    return float(found)


@contextmanager
def _monai_about_itself() -> Iterator[None]:
    """MONAI 1.6 warns that its own code calls a function in a way it means to give up."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "monai", FutureWarning)
        yield


def _cut_to_content(prediction: Mask, reference: Mask) -> tuple[Tensor, Tensor]:
    """The masks as tensors [1, 1, h, w], cut to the box round both and a pixel of background."""
    import torch

    union = prediction | reference
    rows, columns = (np.flatnonzero(union.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    # An organ cut by the image's border has its outline there, too, as MONAI sees it.
    one, other = (
        torch.from_numpy(np.pad(mask[box], 1))[None, None].float()
        for mask in (prediction, reference)
    )
    return one, other
