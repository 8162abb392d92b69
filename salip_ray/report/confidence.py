"""How certain the cascade is of a label, for everything that a person looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

#: Columns of a mask that :func:`confidence` reads if they exist.
FIELDS = ("confidence", "clip_margin", "predicted_iou", "stability_score")


def confidence(masks: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Return a figure from 0 to 1 for each mask: higher is more certain.

    It is the ``confidence`` of the mask if it has one, else the geometric mean of three scores:
    SAM's predicted IoU, SAM's stability score, and CLIP's margin over the best candidate that was
    not retrieved, mapped to 0.5 (no margin) to 1. That mean orders masks; it is no probability.
    Scores that are NaN are left out; without any score the confidence is NaN.

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
