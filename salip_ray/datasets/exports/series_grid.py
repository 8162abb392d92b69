"""The grid of a volume of DICOM slices, files or frames, as NIfTI writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from salip_ray.errors import InputError
from salip_ray.sources.series import SliceGeometry, usual_step

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
    def of(cls, slices: Sequence[SliceGeometry]) -> SeriesGrid:
        """The grid of the slices of a volume, whatever their order.

        Raises:
            InputError: the spacing is missing, or the slices are not evenly spaced on a line, so
                that no affine describes them.
        """
        given = np.array([place.depth for place in slices])
        order = np.argsort(given, kind="stable")
        first, last = slices[order[0]], slices[order[-1]]
        if first.spacing is None:
            raise InputError("no PixelSpacing is given")
        depths = given[order] - given[order[0]]
        step = usual_step(depths)
        if step <= 0:
            raise InputError("several of its slices are at one place")
        steps_away = np.rint(depths / step)
        start = np.array(first.position, np.float64)
        along = (np.array(last.position) - start) / steps_away[-1]
        positions = np.array([slices[number].position for number in order])
        off = np.linalg.norm(positions - start - steps_away[:, None] * along, axis=1)
        if len(set(steps_away)) < len(slices) or off.max() > _UNEVEN * step:
            between = np.diff(depths)
            apart = f"{between.min():g} to {between.max():g} mm apart"
            raise InputError(f"its slices are not evenly spaced ({apart})")
        row_to_row, column_to_column = first.spacing
        affine = np.eye(4)
        affine[:3, 0] = np.array(first.orientation[:3]) * column_to_column
        affine[:3, 1] = np.array(first.orientation[3:]) * row_to_row
        affine[:3, 2] = along
        affine[:3, 3] = start
        places = np.empty(len(slices), np.int64)
        places[order] = steps_away
        return cls(_TO_RAS @ affine, tuple(places.tolist()), first.size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the volume."""
        return self.size[1], self.size[0], max(self.places) + 1

    @property
    def gaps(self) -> int:
        """How many slices the series lacks."""
        return max(self.places) + 1 - len(self.places)
