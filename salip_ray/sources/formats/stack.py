"""The result of every reader: the pictures of one file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Image

Values: TypeAlias = npt.NDArray[Any]
Spacing: TypeAlias = tuple[float, float]  #: mm from row to row, and from column to column


#: x, y, z in mm of three corners: the first pixel, the last of its row, the last of its column.
Plane: TypeAlias = tuple[float, ...]


@dataclass(frozen=True)
class Stack:
    """Pictures of an opened file: one, or its slices, frames or pages.

    Attributes:
        count: number of pictures.
        kind: what each is called: ``image``, ``page``, ``frame``, or ``axial slice`` and the like.
        picture: the picture of an index: uint8 RGB [H, W, 3], C-contiguous and writable. Raises
            ImageError if it cannot be decoded.
        spacing: of the pixels; None if the file does not define it.
        intensities: the grey values behind the picture of an index, [H, W], in the units of the
            file, the brighter the larger; None if they have 8 bits or are colours. It is None if no
            picture of the file has more.
        instance: SOPInstanceUID of a DICOM file.
        plane: where the picture of an index lies in the patient, if a DICOM file says so.
    """

    count: int
    kind: str
    picture: Callable[[int], Image]
    spacing: Spacing | None = None
    intensities: Callable[[int], Values | None] | None = None
    instance: str | None = None
    plane: Callable[[int], Plane | None] | None = None


Reader: TypeAlias = Callable[[bytes, ImageConfig], Stack]


def check_pixels(width: int, height: int, config: ImageConfig) -> None:
    """Raise ImageError if a picture is above ``max_pixels``, or has none."""
    if width < 1 or height < 1:
        raise ImageError(f"the image has {width} x {height} pixels")
    if width * height > config.max_pixels:
        raise ImageError(
            f"the image has {width} x {height} pixels, "
            f"above image.max_pixels = {config.max_pixels:,}"
        )


def check_frames(count: int, config: ImageConfig) -> None:
    """Raise ImageError if a file claims to hold more than ``max_frames`` pictures.

    A false count of a few bytes would otherwise become billions of rows of the manifest.
    """
    if count > config.max_frames:
        raise ImageError(
            f"the file claims to hold {count:,} pictures, "
            f"above image.max_frames = {config.max_frames:,}"
        )
