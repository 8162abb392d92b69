"""The grid of a volume that DICOM files of one slice each form, as NIfTI writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from salip_ray.errors import InputError
from salip_ray.sources.series import SlicePlace, usual_step

_UNEVEN = 0.1  # of a step, by which a slice may be off its place
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's x runs to the left, its y to the back


@dataclass(frozen=True)
class SeriesGrid:
    """Voxels [column, row, slice] of a series.

    Attributes:
        affine: voxel to mm, x to the patient's right, y to the front, z up.
        places: the index of each slice along the third axis; where the series has a gap, one or
            more are left out.
        size: rows and columns of a slice.
    """

    affine: npt.NDArray[np.float64]
    places: tuple[int, ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, slices: Sequence[SlicePlace]) -> SeriesGrid:
        """The grid of the slices of a volume, in order of position.

        Raises:
            InputError: a spacing is missing, or the slices are not evenly spaced on a line, so that
                no affine describes them.
        """
        first = slices[0]
        if first.spacing is None:
            raise InputError("its files have no PixelSpacing")
        depths = np.array([place.depth for place in slices]) - first.depth
        step = usual_step(depths)
        places = np.rint(depths / step)
        positions = np.array([place.position for place in slices], np.float64)
        along = (positions[-1] - positions[0]) / places[-1]
        off = np.linalg.norm(positions - positions[0] - places[:, None] * along, axis=1)
        if len(set(places)) < len(places) or off.max() > _UNEVEN * step:
            steps = np.diff(depths)
            raise InputError(
                f"its slices are not evenly spaced ({steps.min():g} to {steps.max():g} mm apart)"
            )
        row_to_row, column_to_column = first.spacing
        affine = np.eye(4)
        affine[:3, 0] = np.array(first.orientation[:3]) * column_to_column
        affine[:3, 1] = np.array(first.orientation[3:]) * row_to_row
        affine[:3, 2] = along
        affine[:3, 3] = first.position
        return cls(_TO_RAS @ affine, tuple(int(place) for place in places), first.size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the volume."""
        return self.size[1], self.size[0], self.places[-1] + 1

    @property
    def gaps(self) -> int:
        """How many slices the series lacks."""
        return self.places[-1] + 1 - len(self.places)
