"""Turn intensities of any depth into 8-bit grey by windows and percentiles.

A *range* is the pair of intensities that become 0 and 255. Values between them are scaled linearly,
and others are clipped. The slices of a volume share one range, so that they stay comparable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.schema import Image

Grey: TypeAlias = npt.NDArray[np.uint8]  #: shape [H, W]
Values: TypeAlias = npt.NDArray[Any]
Range: TypeAlias = tuple[float, float]

_SAMPLE = 1 << 24  # percentiles of more values than this are those of a sample


def window_range(window: Window) -> Range:
    """Return the range of a window."""
    return window.center - window.width / 2, window.center + window.width / 2


def range_of(values: Values, config: ImageConfig) -> Range:
    """Return the range of intensities by ``image.window`` and ``image.depth``.

    Percentiles of integers of up to 16 bits are exact. Those of more than 16 M other values come
    from an evenly spread sample.

    Raises:
        ImageError: no value is finite.
    """
    if isinstance(config.window, Window):
        return window_range(config.window)
    if config.depth == "full_range" and values.dtype.kind in "bui" and values.dtype.itemsize <= 2:
        if values.dtype == np.bool_:
            return 0.0, 1.0
        limits = np.iinfo(values.dtype)
        return float(limits.min), float(limits.max)
    if config.depth != "slice_range" and values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        return _counted_range(values, config)
    finite = values if config.depth == "slice_range" else _sample(values)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        raise ImageError("the image holds no finite value")
    if config.depth in {"full_range", "slice_range"}:
        return float(finite.min()), float(finite.max())
    low, high = np.percentile(finite, config.percentiles)
    if high <= low:  # nearly all pixels are equal: show the few others
        low, high = finite.min(), finite.max()
    return float(low), float(high)


def _sample(values: Values) -> Values:
    flat = values.ravel(order="K")
    step = -(-flat.size // _SAMPLE)
    return flat[::step].astype(np.float64)


def _counted_range(values: Values, config: ImageConfig) -> Range:
    """Return percentiles of small integers from their counts: exact, and without a copy."""
    limits = np.iinfo(values.dtype)
    counts = np.zeros(int(limits.max) - int(limits.min) + 1, np.int64)
    for part in _parts(values):
        counts += np.bincount(
            part.ravel(order="K").astype(np.int64) - int(limits.min), minlength=counts.size
        )
    ranks = np.cumsum(counts)
    levels = np.flatnonzero(counts)
    if levels.size == 0:
        raise ImageError("the image holds no value")

    def percentile(share: float) -> float:
        rank = share / 100 * (int(ranks[-1]) - 1)
        below, above = (
            int(np.searchsorted(ranks, rank, side="right")) + int(limits.min)
            for rank in (np.floor(rank), np.ceil(rank))
        )
        return float(below + (above - below) * (rank - np.floor(rank)))

    low, high = (percentile(share) for share in config.percentiles)
    if high <= low:
        low, high = float(levels[0] + int(limits.min)), float(levels[-1] + int(limits.min))
    return low, high


def _parts(values: Values) -> Iterable[Values]:
    """Return the planes of a volume along its slowest axis; anything smaller in one part."""
    if values.ndim < 3:
        return (values,)
    slowest = int(np.argmax(np.abs(values.strides)))
    return np.moveaxis(values, slowest, 0)


def to_grey(values: Values, limits: Range) -> Grey:
    """Scale intensities to 0..255. NaN, and all values if the range is empty, become 0."""
    low, high = limits
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    wide = values.astype(np.float64)
    scaled = np.clip((np.nan_to_num(wide, nan=low, posinf=high, neginf=low) - low), 0, high - low)
    return np.asarray(np.rint(scaled / (high - low) * 255.0).astype(np.uint8))


def to_rgb(grey: Grey) -> Image:
    """Repeat grey three times: [H, W, 3], C-contiguous."""
    return np.repeat(np.ascontiguousarray(grey)[:, :, None], 3, axis=2)
