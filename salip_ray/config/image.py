"""The section ``image``: how a file becomes pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from salip_ray.config.base import Percent, Positive, Section

Axis = Literal["axial", "coronal", "sagittal"]


class Window(Section):
    """An intensity window: ``center - width / 2`` becomes black, ``center + width / 2`` white."""

    center: float
    width: Annotated[float, Field(gt=0.0)]


class ImageConfig(Section):
    """How a file becomes pixels. ``long_side`` is that of the working image.

    ``window`` applies to DICOM and to greys of more than 8 bits, in the units of the file
    (Hounsfield units for CT). ``from_file`` uses the window or look-up table of a DICOM file, else
    its whole range; ``auto`` does the same, but uses ``percentiles`` if the file has none. In other
    formats, ``depth`` scales greys of more than 8 bits by ``percentiles`` (of the volume, if there
    is one) or by the full range of their type. Volumes are sliced along ``axis`` of the patient,
    taken from the affine; ``volume_index`` selects a volume of a 4-D file. With ``skip_blank``, a
    slice of one uniform grey is recorded as empty and not labelled. ``max_bytes`` limits a file and
    an unpacked volume; ``max_frames`` limits the slices, frames or pages that a file declares.

    Some options exist for the published code's conventions. With ``aspect: square`` the working
    image is ``long_side`` x ``long_side``, whatever the shape of the image. ``resample: bilinear``
    resizes to it without antialiasing (OpenCV's ``INTER_LINEAR``). ``channels: bgr`` swaps red and
    blue of the working image, as the published code does for chest X-rays. For volumes,
    ``depth: slice_range`` scales each slice from its own minimum and maximum.
    """

    long_side: Annotated[int, Field(ge=16, le=8192)] = 1024
    max_pixels: Positive = 300_000_000
    max_bytes: Positive = 2_000_000_000
    max_frames: Positive = 100_000
    window: Literal["auto", "from_file"] | Window = "auto"
    depth: Literal["percentile", "full_range", "slice_range"] = "percentile"
    percentiles: tuple[Percent, Percent] = (0.5, 99.5)
    axis: Axis = "axial"
    aspect: Literal["keep", "square"] = "keep"
    resample: Literal["antialiased", "bilinear"] = "antialiased"
    channels: Literal["rgb", "bgr"] = "rgb"
    volume_index: Annotated[int, Field(ge=0)] = 0
    skip_blank: bool = True

    @field_validator("percentiles")
    @classmethod
    def _ascending(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if percentiles[0] >= percentiles[1]:
            raise ValueError("percentiles must be two ascending numbers from 0 to 100")
        return percentiles
