"""How sure the cascade is of a label, in one place for all that a person looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

#: Columns of a mask that :func:`confidence` reads, where they are there.
FIELDS = ("confidence", "clip_margin", "predicted_iou", "stability_score")


def confidence(masks: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """A figure from 0 to 1 for each mask, the surer the higher.

    A mask's own ``confidence`` counts where it has one. Else it is the geometric mean of what the
    two models say: SAM's predicted IoU, its stability, and CLIP's margin over the best candidate
    that was not retrieved, the latter brought to 0.5 (no margin) to 1. That is an order of masks
    and not a probability. A figure that is NaN counts for nothing: without one at all the
    confidence is NaN.

    Args:
        masks: columns of masks, each [n]; those of :data:`FIELDS` are read.
    """
    columns = {name: np.asarray(masks[name], np.float64) for name in FIELDS if name in masks}
    parts = [
        np.clip(columns[name], 1e-6, 1.0)
        for name in ("predicted_iou", "stability_score")
        if name in columns
    ]
    if "clip_margin" in columns:
        parts.append(1.0 - 0.5 * np.exp(-np.clip(columns["clip_margin"], 0.0, None)))
    known = np.stack(parts)
    counted = np.isfinite(known)
    logs = np.where(counted, np.log(np.where(counted, known, 1.0)), 0.0).sum(axis=0)
    n = counted.sum(axis=0)
    derived = np.where(n > 0, np.exp(logs / np.maximum(n, 1)), np.nan)
    if "confidence" not in columns:
        return derived
    own = columns["confidence"]
    return np.where(np.isfinite(own), own, derived)
