"""The voxel grid of a volume of DICOM slices (files or frames), as NIfTI describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from salip_ray.errors import InputError
from salip_ray.sources.series import SliceGeometry, common_depths, usual_step

_TOLERANCE = 0.1  # of a step, by which a slice may miss its position
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's x runs to the left, its y to the back


@dataclass(frozen=True)
class SeriesGrid:
    """Voxels [column, row, slice] of a series.

    Attributes:
        affine: voxel to mm: x to the patient's right, y to the front, z up.
        indices: the index of each slice along the third axis; gaps of the series leave some out.
        size: rows and columns of a slice.
    """

    affine: npt.NDArray[np.float64]
    indices: tuple[int, ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, slices: Sequence[SliceGeometry]) -> SeriesGrid:
        """Return the grid of the slices of a volume, in any order.

        Raises:
            InputError: the pixel spacing is missing, the slices differ in size, spacing or
                orientation, or they are not evenly spaced on a line, so that no affine describes
                them.
        """
        if len(slices) < 2:
            raise InputError("it is a single slice")
        if reason := next(filter(None, (slices[0].difference(other) for other in slices)), ""):
            raise InputError(f"its slices differ in {reason}")
        depth_of = common_depths(slices)
        order = np.argsort(depth_of, kind="stable")
        first, last = slices[order[0]], slices[order[-1]]
        if first.spacing is None:
            raise InputError("its PixelSpacing is missing or not above 0")
        depths = depth_of[order] - depth_of[order[0]]
        step = usual_step(depths)
        if step <= 0:
            raise InputError("several of its slices have the same position")
        steps_away = np.rint(depths / step)
        start = np.array(first.position, np.float64)
        along = (np.array(last.position) - start) / steps_away[-1]
        positions = np.array([slices[number].position for number in order])
        off = np.linalg.norm(positions - start - steps_away[:, None] * along, axis=1)
        if len(set(steps_away)) < len(slices) or off.max() > _TOLERANCE * step:
            distances = np.diff(depths)
            apart = f"{distances.min():g} to {distances.max():g} mm apart"
            raise InputError(f"its slices are not evenly spaced ({apart})")
        row_to_row, column_to_column = first.spacing
        affine = np.eye(4)
        affine[:3, 0] = np.array(first.orientation[:3]) * column_to_column
        affine[:3, 1] = np.array(first.orientation[3:]) * row_to_row
        affine[:3, 2] = along
        affine[:3, 3] = start
        indices = np.empty(len(slices), np.int64)
        indices[order] = steps_away
        return cls(_TO_RAS @ affine, tuple(indices.tolist()), first.size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices of the volume, gaps included."""
        return self.size[1], self.size[0], max(self.indices) + 1

    @property
    def gaps(self) -> int:
        """The number of slices that the series lacks."""
        return max(self.indices) + 1 - len(self.indices)
