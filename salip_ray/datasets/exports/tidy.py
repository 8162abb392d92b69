"""Clean up a label volume in 3-D, by rules that need more than one slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from salip_ray.output.masks import LabelMap


@dataclass(frozen=True)
class Tidy:
    """The rules to apply to each class; by default none.

    Attributes:
        largest: keep only the largest connected component (26 neighbours).
        fill_holes: fill what is enclosed on all sides.
        min_slices: drop components that span fewer slices.
    """

    largest: bool = False
    fill_holes: bool = False
    min_slices: int = 0

    def __call__(self, volume: LabelMap, axis: int, ignore_index: int | None = None) -> LabelMap:
        """Return a tidied copy of a label volume.

        Filling holes never takes voxels from another class.

        Args:
            volume: class ids, 3-D.
            axis: the voxel axis along which the volume was cut into slices.
            ignore_index: a value that is no class: its voxels stay.
        """
        tidied = np.zeros_like(volume)
        classes = [int(value) for value in np.unique(volume) if value not in {0, ignore_index}]
        for value in classes:
            tidied[self._selected(volume == value, axis)] = value
        if self.fill_holes:
            for value in classes:
                filled = ndimage.binary_fill_holes(tidied == value)
                tidied[filled & (tidied == 0)] = value
        if ignore_index is not None:
            tidied[volume == ignore_index] = ignore_index
        return tidied

    def _selected(self, mask: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.bool_]:
        if not self.largest and self.min_slices < 2:
            return mask
        components, count = ndimage.label(mask, np.ones((3, 3, 3)))
        selected = np.zeros(count + 1, np.bool_)
        for index, box in enumerate(ndimage.find_objects(components), start=1):
            selected[index] = box[axis].stop - box[axis].start >= self.min_slices
        if self.largest and selected.any():
            sizes = np.where(selected, np.bincount(components.ravel(), minlength=count + 1), 0)
            selected = np.arange(count + 1) == int(sizes.argmax())
        return np.asarray(selected[components])
