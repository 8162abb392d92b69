"""Tidying a label volume in 3-D: what a slice cannot know about itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from salip_ray.output.masks import LabelMap


@dataclass(frozen=True)
class Tidy:
    """What is tidied, for each class; by default nothing.

    Attributes:
        largest: keep the largest connected component (26 neighbours) alone.
        fill_holes: fill what is enclosed on all sides.
        min_slices: drop components that reach over fewer slices.
    """

    largest: bool = False
    fill_holes: bool = False
    min_slices: int = 0

    def __call__(self, volume: LabelMap, axis: int) -> LabelMap:
        """A tidied copy of a label volume that was cut along a voxel axis.

        Filling never takes voxels from another class.
        """
        tidied = np.zeros_like(volume)
        classes = [int(value) for value in np.unique(volume) if value]
        for value in classes:
            tidied[self._kept(volume == value, axis)] = value
        if self.fill_holes:
            for value in classes:
                filled = ndimage.binary_fill_holes(tidied == value)
                tidied[filled & (tidied == 0)] = value
        return tidied

    def _kept(self, mask: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.bool_]:
        if not self.largest and self.min_slices < 2:
            return mask
        parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
        kept = np.zeros(count + 1, np.bool_)
        for index, place in enumerate(ndimage.find_objects(parts), start=1):
            kept[index] = place[axis].stop - place[axis].start >= self.min_slices
        if self.largest and kept.any():
            sizes = np.where(kept, np.bincount(parts.ravel(), minlength=count + 1), 0)
            kept = np.arange(count + 1) == int(sizes.argmax())
        return np.asarray(kept[parts])
