"""NIfTI-1 and NIfTI-2 volumes, plain or gzipped, by nibabel: cut along an anatomical axis.

A slice is drawn as radiologists see it. The affine tells which voxel axis runs closest to which
direction of the body, and in which sense:

    axial      from the feet to the head; the front is up, the patient's right on the left
    coronal    from the back to the front; the head is up, the patient's right on the left
    sagittal   from the patient's left to the right; the head is up, the front on the left

The index of a slice counts in that direction. Only :meth:`Grid.plane` knows this. Labels
are written back through it, so they cannot be mirrored.
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
from salip_ray.config.image import Axis
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
from salip_ray.sources.formats.stack import Spacing, Stack, check_frames, check_pixels

HEADER_BYTES = 1024  #: enough of an unpacked file to know its grid
_AXES: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
_GZIP = b"\x1f\x8b"
_SLACK = 1 << 20  #: bytes after the voxels that are unpacked, too, to check the end of the stream
_UNITS = {1: 1000.0, 2: 1.0, 3: 0.001}  #: mm of a metre, millimetre and micron, by code


@dataclass(frozen=True)
class Grid:
    """Voxels of a volume, and the directions of the body along them.

    Attributes:
        shape: of the volume, 3-D.
        affine: voxel to the header's units, x to the patient's right, y to the front, z up.
        axis: the direction in which it is cut.
        unit: millimetres of a unit of the affine: 1000 for metres, 0.001 for microns.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    axis: Axis
    unit: float = 1.0

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.shape[self._layout[0][0]]

    @property
    def cut_axis(self) -> int:
        """Voxel axis that is cut."""
        return self._layout[0][0]

    @property
    def spacing(self) -> Spacing:
        """Millimetres from row to row and from column to column of a slice."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0) * self.unit
        (_, rows, columns) = self._layout
        return float(sizes[rows[0]]), float(sizes[columns[0]])

    @property
    def slice_distance(self) -> float:
        """Millimetres from slice to slice."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0) * self.unit
        return float(sizes[self.cut_axis])

    def plane(self, volume: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return a slice as a view [rows, columns] of a volume, which can be written to."""
        (cut, forward), (rows, down), (columns, right) = self._layout
        voxel = index if forward else self.shape[cut] - 1 - index
        across = volume[(slice(None),) * cut + (voxel,)]
        if rows > columns:
            across = across.T
        return across[:: 1 if down else -1, :: 1 if right else -1]

    @property
    def _layout(self) -> tuple[tuple[int, bool], tuple[int, bool], tuple[int, bool]]:
        """Voxel axis of slices, rows and columns, and whether its index rises along them."""
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
    header, voxels, grid = _open(data, config)
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
        plane = grid.plane(voxels, index) * slope + intercept
        own = range_of(plane, config) if config.depth == "slice_range" else limits
        return to_rgb(to_grey(plane, own))

    def intensities(index: int) -> Values:
        return np.asarray(grid.plane(voxels, index) * slope + intercept)

    deep = None if voxels.dtype == np.uint8 else intensities
    return Stack(grid.count, f"{config.axis} slice", grey, grid.spacing, deep)


def read_labels(data: bytes, config: ImageConfig) -> tuple[Values, Grid]:
    """Return the class ids of a label volume, and its grid.

    Raises:
        ImageError: as for :func:`read`, or the volume holds fractions.
    """
    header, voxels, grid = _open(data, config)
    slope, intercept = header.get_slope_inter()
    values = voxels if slope in (None, 1.0) and not intercept else voxels * slope + intercept
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise ImageError(
            "a label volume must hold whole numbers, found fractions: if it holds probabilities, "
            "write a volume of 0 and 1 from them first"
        )
    return values, grid


def _range(voxels: Values, slope: float, intercept: float, config: ImageConfig) -> Range:
    """Return one range for the whole volume, in scaled units."""
    if isinstance(config.window, Window):
        return window_range(config.window)
    ends = [end * slope + intercept for end in range_of(voxels, config)]
    return min(ends), max(ends)


def unpacked(data: bytes, limit: int) -> bytes:
    """Return the bytes behind gzip, at most ``limit`` of them.

    Raises:
        ImageError: the stream is corrupt, or ends before the limit without its own end.
    """
    if data[:2] != _GZIP:
        return data
    parts: list[bytes] = []
    remaining = limit
    try:
        while data[:2] == _GZIP and remaining > 0:  # gzip files may be joined
            stream = zlib.decompressobj(wbits=31)
            part = stream.decompress(data, remaining)
            parts.append(part)
            remaining -= len(part)
            if remaining > 0 and not stream.eof:
                raise ImageError("corrupt or truncated: the gzip stream ends early")
            data = stream.unused_data
    except zlib.error:
        raise ImageError("corrupt or truncated: the gzip stream is damaged") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_header(data: bytes) -> Any:
    """Read the header at the start of unpacked bytes, as nibabel's NIfTI-1 or NIfTI-2 header.

    Values against the standard are repaired as its reference library does: a qfac of 0 is 1, sizes
    of voxels are positive, a size of 0 is 1, and too long a quaternion is of unit length.

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
        header.get_data_dtype(), header.get_data_shape(), header.get_slope_inter()
        offset = int(header.get_data_offset())
        _repair(header)
    except Exception:  # noqa: BLE001  (a corrupt header makes nibabel raise anything)
        raise ImageError("the NIfTI header is corrupt, or names an unknown data type") from None
    if not magic.startswith(b"n+"):
        raise ImageError("the voxels are in another file (.img): convert the pair to one .nii")
    if offset < length:
        raise ImageError(f"the NIfTI header says that voxels begin within it (vox_offset {offset})")
    return header


def _repair(header: Any) -> None:
    """Repair values of a header in place."""
    sizes = np.array(header["pixdim"], np.float64)
    sizes[0] = -1 if sizes[0] < 0 else 1
    usable = np.isfinite(sizes[1:4]) & (sizes[1:4] != 0)
    sizes[1:4] = np.where(usable, np.abs(sizes[1:4]), 1)
    if not np.array_equal(sizes, header["pixdim"]):
        header["pixdim"] = sizes
    names = ("quatern_b", "quatern_c", "quatern_d")
    length = math.sqrt(sum(float(header[name]) ** 2 for name in names))
    if length > 1:
        for name in names:
            header[name] = float(header[name]) / length


def grid_of(header: Any, config: ImageConfig) -> Grid:
    """Return the grid of a header, cut along ``image.axis``.

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
        volumes = "1 volume" if times == 1 else f"{times} volumes"
        raise ImageError(
            f"image.volume_index is {config.volume_index}, but the file holds {volumes}"
        )
    first, second, third = (*shape, 1, 1)[:3]
    unit = _UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    grid = Grid((first, second, third), _affine(header), config.axis, unit)
    check_frames(grid.count, config)
    return grid


def _affine(header: Any) -> npt.NDArray[np.float64]:
    """Return the affine by the standard: that of the sform, else the qform, else voxel sizes.

    Without either code the standard's method 1 applies: axes point right, front and up. (nibabel
    mirrors the first axis in that case, as Analyze files have it.)
    """
    candidates = []
    if int(header["sform_code"]) > 0:
        candidates.append(header.get_sform)
    if int(header["qform_code"]) > 0:
        candidates.append(header.get_qform)
    if not candidates:
        candidates.append(lambda: np.diag([*np.array(header["pixdim"][1:4], np.float64), 1.0]))
    for candidate in candidates:
        try:
            affine = np.asarray(candidate(), np.float64)
        except Exception:  # noqa: BLE001, S112  (a corrupt quaternion makes nibabel raise anything)
            continue
        if np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3:
            return affine
    raise ImageError(
        "the affine of the volume is singular or not finite: its axes have no direction"
    )


def _open(data: bytes, config: ImageConfig) -> tuple[Any, Values, Grid]:
    """Return the header, the chosen 3-D volume as stored, and its grid.

    No more is unpacked than the header's shape needs: a few bytes of gzip may hold gigabytes.
    """
    header = read_header(unpacked(data, HEADER_BYTES))
    grid = grid_of(header, config)
    dtype = header.get_data_dtype()
    if dtype.kind not in "uif" and dtype != _RGB:
        code = int(header["datatype"])
        name = str(nibabel.nifti1.data_type_codes.niistring[code]).removeprefix("NIFTI_TYPE_")
        raise ImageError(f"voxels of type {name} are not grey or RGB")
    count = math.prod(grid.shape)
    offset = int(header.get_data_offset()) + config.volume_index * count * dtype.itemsize
    needed = offset + count * dtype.itemsize
    if needed > config.max_bytes:
        raise ImageError(
            f"the volume unpacks to more than image.max_bytes = {config.max_bytes:,} "
            f"({needed:,} bytes)"
        )
    data = unpacked(data, needed + _SLACK)
    if len(data) < needed:
        raise ImageError(
            f"truncated: {count:,} voxels need {count * dtype.itemsize:,} bytes, "
            f"the file has {max(0, len(data) - offset):,}"
        )
    return header, np.frombuffer(data, dtype, count, offset).reshape(grid.shape, order="F"), grid
