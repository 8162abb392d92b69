"""NIfTI-1 and NIfTI-2 volumes, plain or gzipped, by nibabel: cut along an anatomical axis.

A slice is drawn as a radiologist sees it. The affine says which voxel axis runs closest to which
direction of the body, and which way:

    axial      from the feet to the head; the front is up, the patient's right on the left
    coronal    from the back to the front; the head is up, the patient's right on the left
    sagittal   from the patient's left to the right; the head is up, the front on the left

The index of a slice counts in that direction. :meth:`Grid.plane` is the one place that knows this;
labels are put back through it, so they cannot be mirrored.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from salip_ray.config import ImageConfig, Window
from salip_ray.config.sections import Axis
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats.intensity import (
    Range,
    Values,
    range_of,
    to_grey,
    to_rgb,
    window_range,
)
from salip_ray.sources.formats.stack import Spacing, Stack, check_frames, check_pixels, one_line

HEADER_BYTES = 1024  #: enough of an unpacked file to know its grid
_AXES: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Grid:
    """A volume's voxels, and how the body lies in them.

    Attributes:
        shape: of the volume, 3-D.
        affine: voxel to mm, x to the patient's right, y to the front, z up.
        axis: the direction in which it is cut.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    axis: Axis

    @property
    def count(self) -> int:
        """How many slices there are."""
        return self.shape[self._layout[0][0]]

    @property
    def cut_axis(self) -> int:
        """The voxel axis that is cut."""
        return self._layout[0][0]

    @property
    def spacing(self) -> Spacing:
        """Of a slice's pixels."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        (_, rows, columns) = self._layout
        return float(sizes[rows[0]]), float(sizes[columns[0]])

    def plane(self, volume: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """The slice of an index as a view [rows, columns] of a volume; what is written stays."""
        (cut, forward), (rows, down), (columns, right) = self._layout
        place = index if forward else self.shape[cut] - 1 - index
        across = volume[(slice(None),) * cut + (place,)]
        if rows > columns:
            across = across.T
        return across[:: 1 if down else -1, :: 1 if right else -1]

    @property
    def _layout(self) -> tuple[tuple[int, bool], tuple[int, bool], tuple[int, bool]]:
        """Voxel axis, and whether it is walked forward, of: slices, rows, columns."""
        directions = io_orientation(self.affine)
        if np.isnan(directions).any():
            raise ImageError("the affine of the volume is singular: its axes have no direction")
        of_body = {int(body): (voxel, flip > 0) for voxel, (body, flip) in enumerate(directions)}
        cut = _AXES[self.axis]
        # Up on the picture is the front or the head; its left is the patient's right, or the front.
        row_body = 1 if cut == 2 else 2
        column_body = 1 if cut == 0 else 0
        (rows, rows_up), (columns, columns_up) = of_body[row_body], of_body[column_body]
        return of_body[cut], (rows, not rows_up), (columns, not columns_up)


def read(data: bytes, config: ImageConfig) -> Stack:
    """Open a volume as its slices.

    Raises:
        ImageError: not NIfTI, truncated, without a usable grid, or above a limit.
    """
    data = unpacked(data, config.max_bytes)
    header = read_header(data)
    voxels, grid = _voxels(data, header, config)
    slope, intercept = header.get_slope_inter()
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    rows, columns = grid.plane(voxels, 0).shape[:2]
    check_pixels(columns, rows, config)
    if voxels.dtype == _RGB:

        def colour(index: int) -> Image:
            plane = grid.plane(voxels, index)
            return np.stack([plane[name] for name in "RGB"], axis=-1)

        return Stack(grid.count, f"{config.axis} slice", colour, grid.spacing)
    limits = _range(voxels, slope, intercept, config)

    def grey(index: int) -> Image:
        return to_rgb(to_grey(grid.plane(voxels, index) * slope + intercept, limits))

    return Stack(grid.count, f"{config.axis} slice", grey, grid.spacing)


def read_labels(data: bytes, config: ImageConfig) -> tuple[Values, Grid]:
    """The class ids of a label volume, and its grid.

    Raises:
        ImageError: as for :func:`read`, or the volume holds other than whole numbers.
    """
    data = unpacked(data, config.max_bytes)
    header = read_header(data)
    voxels, grid = _voxels(data, header, config)
    slope, intercept = header.get_slope_inter()
    values = voxels if slope in (None, 1.0) and not intercept else voxels * slope + intercept
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise ImageError("a label volume must hold whole numbers, found fractions")
    return values, grid


def _range(voxels: Values, slope: float, intercept: float, config: ImageConfig) -> Range:
    """One range for the whole volume, in the scaled units."""
    if isinstance(config.window, Window):
        return window_range(config.window)
    ends = [end * slope + intercept for end in range_of(voxels, config)]
    return min(ends), max(ends)


def unpacked(data: bytes, limit: int) -> bytes:
    """The bytes behind gzip, at most ``limit`` of them.

    Raises:
        ImageError: the stream is corrupt, ends early, or holds more.
    """
    if data[:2] != _GZIP:
        return data
    parts: list[bytes] = []
    room = limit + 1
    try:
        while data[:2] == _GZIP and room > 0:  # gzip files may be joined
            stream = zlib.decompressobj(wbits=31)
            part = stream.decompress(data, room)
            parts.append(part)
            room -= len(part)
            if room > 0 and not stream.eof:
                raise ImageError("corrupt or truncated: the gzip stream ends early")
            data = stream.unused_data
    except zlib.error as error:
        raise ImageError(f"corrupt or truncated: {one_line(error)}") from None
    if room <= 0:
        raise ImageError(f"the volume unpacks to more than image.max_bytes = {limit:,}")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_header(data: bytes) -> Any:
    """The header at the head of unpacked bytes: nibabel's, of NIfTI-1 or NIfTI-2.

    Raises:
        ImageError: it is neither, or its voxels are in another file.
    """
    kinds = {
        length.to_bytes(4, order): (kind, length)
        for kind, length in ((nibabel.Nifti1Header, 348), (nibabel.Nifti2Header, 540))
        for order in ("little", "big")
    }
    if data[:4] not in kinds:
        raise ImageError(f"not a NIfTI file (it begins with {data[:8]!r})")
    kind, length = kinds[data[:4]]
    try:
        header: Any = kind(data[:length], check=False)  # type: ignore[no-untyped-call]
        magic = bytes(header["magic"].item())
        if not magic.startswith(b"n+"):
            raise ImageError("the voxels are in another file (.img): convert the pair to one .nii")
        header.get_data_dtype(), header.get_data_shape(), header.get_slope_inter()
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001  (a corrupt header makes it raise anything)
        raise ImageError(f"the NIfTI header is corrupt: {one_line(error)}") from None
    return header


def grid_of(header: Any, config: ImageConfig) -> Grid:
    """The grid of a header, cut along ``image.axis``.

    Raises:
        ImageError: the shape or the affine cannot be used, or ``image.volume_index`` is too large.
    """
    shape = tuple(int(side) for side in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise ImageError(f"the volume has the shape {list(shape)}")
    extra = [side for side in shape[4:] if side != 1]
    if extra:
        raise ImageError(f"the volume has the shape {list(shape)}: at most 4 dimensions are read")
    times = shape[3] if len(shape) > 3 else 1
    if config.volume_index >= times:
        raise ImageError(
            f"image.volume_index is {config.volume_index}, but the file holds {times} volume(s)"
        )
    first, second, third = (*shape, 1, 1)[:3]
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except Exception as error:  # noqa: BLE001  (a corrupt quaternion makes it raise anything)
        raise ImageError(f"the affine of the volume is corrupt: {one_line(error)}") from None
    if not np.isfinite(affine).all():
        raise ImageError("the affine of the volume is not finite")
    grid = Grid((first, second, third), affine, config.axis)
    check_frames(grid.count, config)
    return grid


def _voxels(data: bytes, header: Any, config: ImageConfig) -> tuple[Values, Grid]:
    """The chosen 3-D volume as stored, a view of the bytes."""
    grid = grid_of(header, config)
    dtype = header.get_data_dtype()
    if dtype.kind not in "uif" and dtype != _RGB:
        raise ImageError(f"voxels of type {dtype} are not grey or RGB")
    count = math.prod(grid.shape)
    offset = int(header.get_data_offset()) + config.volume_index * count * dtype.itemsize
    if len(data) < offset + count * dtype.itemsize:
        raise ImageError(
            f"truncated: {count:,} voxels need {count * dtype.itemsize:,} bytes, "
            f"found {max(0, len(data) - offset):,}"
        )
    voxels = np.frombuffer(data, dtype, count, offset).reshape(grid.shape, order="F")
    return voxels, grid
