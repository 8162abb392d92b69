"""DICOM, by pydicom: what a viewer shows.

Modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1; palettes and YBR
become RGB. An enhanced multi-frame object has these values per frame. Greys of up to 8 bits without
a window are not scaled. Compressed transfer syntaxes need the extra ``dicom``.

Messages quote neither the file's data set, whose values may name a patient, nor pydicom.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats.dicom_dataset import (
    PIXELS,
    frame_count,
    frame_dataset,
    pair_of,
    plane_of,
    quiet,
    read_data,
)
from salip_ray.sources.formats.dicom_grey import (
    file_window,
    is_padding,
    modality_values,
    read_table,
    voi_table,
    whole_range,
)
from salip_ray.sources.formats.dicom_stored import stored_values
from salip_ray.sources.formats.intensity import (
    Grey,
    Range,
    Values,
    range_of,
    to_grey,
    to_rgb,
    window_range,
)
from salip_ray.sources.formats.stack import Spacing, Stack, check_frames, check_pixels

_COLOURS = frozenset(
    {"RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422"}
    | {"YBR_ICT", "YBR_RCT"}
)
_GREYS = frozenset({"MONOCHROME1", "MONOCHROME2"})
_DEFAULTS = {"SamplesPerPixel": 1, "PixelRepresentation": 0}
_BITS = 64  # more than any sample has


def read(data: bytes, config: ImageConfig) -> Stack:
    """Open a DICOM file as its frames.

    Raises:
        ImageError: not DICOM, without pixels, or above a limit.
    """
    with quiet():
        ds = read_data(data, config)
        if not any(name in ds for name in PIXELS):
            raise ImageError("the DICOM file holds no pixels")
        try:
            rows, columns, frames = int(ds.Rows), int(ds.Columns), frame_count(ds)
        except (AttributeError, TypeError, ValueError):
            raise ImageError(
                "the DICOM file lacks Rows, Columns or a whole NumberOfFrames"
            ) from None
        check_frames(frames, config)
        check_pixels(columns, rows, config)
        _check_attributes(ds)
        spacing = _spacing(frame_dataset(ds, 0))
    pictures = _Frames(ds, frames, config)
    kind = "frame" if frames > 1 else "image"
    instance = str(ds.get("SOPInstanceUID") or "") or None
    return Stack(
        frames,
        kind,
        pictures.picture,
        spacing,
        pictures.intensities,
        instance,
        partial(plane_of, ds),
    )


def _check_attributes(ds: Dataset) -> None:
    """Set attributes that have a usual value, and raise ImageError if others are impossible."""
    for keyword, value in _DEFAULTS.items():
        if ds.get(keyword) is None:
            setattr(ds, keyword, value)
    interpretation = str(ds.get("PhotometricInterpretation") or "").strip()
    if "PixelData" in ds:
        try:
            allocated = int(ds.get("BitsAllocated") or 0)
            stored = int(allocated if ds.get("BitsStored") is None else ds.BitsStored)
        except (TypeError, ValueError):
            allocated = stored = 0
        if not 1 <= stored <= allocated <= _BITS:
            raise ImageError("the DICOM file has an impossible BitsAllocated or BitsStored")
        ds.BitsStored = stored
    if not interpretation:
        raise ImageError("the DICOM file has no PhotometricInterpretation")
    if interpretation not in _COLOURS | _GREYS:
        known = ", ".join(sorted(_COLOURS | _GREYS))
        raise ImageError(f"the DICOM file has another PhotometricInterpretation than {known}")


class _Frames:
    """Frames of a data set; they share one range if the file names no window."""

    def __init__(self, ds: Dataset, count: int, config: ImageConfig) -> None:
        self._ds, self._count, self._config = ds, count, config
        self._range: Range | None = None

    def picture(self, index: int) -> Image:
        with quiet():
            frame = frame_dataset(self._ds, index)
            stored = stored_values(self._ds, index, self._count)
            try:
                if stored.ndim == 3 or frame.PhotometricInterpretation == "PALETTE COLOR":
                    return self._colour(stored)
                grey = self._grey(stored, frame)
            except (ImageError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001  (corrupt attributes make it raise anything)
                kind = type(error).__name__
                raise ImageError(
                    f"cannot be shown: an attribute of its pixels is missing or corrupt ({kind})"
                ) from None
        if frame.PhotometricInterpretation == "MONOCHROME1":
            grey = 255 - grey
        return to_rgb(grey)

    def intensities(self, index: int) -> Values | None:
        """Return the grey values of a frame of more than 8 bits, the brighter the larger."""
        with quiet():
            frame = frame_dataset(self._ds, index)
            deep = int(frame.get("BitsStored") or 16) > 8
            if not deep or frame.PhotometricInterpretation not in _GREYS:
                return None
            values = modality_values(stored_values(self._ds, index, self._count), frame)
        inverted = frame.PhotometricInterpretation == "MONOCHROME1"
        return -values.astype(np.float64) if inverted else values

    def _colour(self, values: Values) -> Image:
        bits = int(self._ds.BitsStored)
        if values.ndim == 2:
            values, bits = _palette(values, self._ds)
        if bits > 8:
            return np.ascontiguousarray(to_grey(values[..., :3], (0.0, float(2**bits - 1))))
        return np.array(values[..., :3], np.uint8, order="C")

    def _grey(self, stored: Values, frame: Dataset) -> Grey:
        values = modality_values(stored, frame)
        if isinstance(self._config.window, Window):
            return to_grey(values, window_range(self._config.window))
        limits = whole_range(frame, values)
        if table := voi_table(frame, limits):
            return to_grey(table(values), table.range)
        if window := file_window(frame):
            return window.grey(values, limits)
        if self._config.window == "from_file" or int(frame.get("BitsStored") or 16) <= 8:
            return to_grey(values, limits)
        if self._range is None:
            self._range = self._shared_range(stored, values, frame)
        return to_grey(values, self._range)

    def _shared_range(self, stored: Values, values: Values, frame: Dataset) -> Range:
        if self._count == 1:
            return range_of(_unpadded(stored, values, frame), self._config)
        size = self._count * values.size * values.dtype.itemsize
        if size > self._config.max_bytes:
            raise ImageError(
                f"its {self._count} frames have {size:,} bytes unpacked, "
                f"above image.max_bytes = {self._config.max_bytes:,}"
            )
        return range_of(np.concatenate(list(self._all_unpadded())), self._config)

    def _all_unpadded(self) -> Iterator[Values]:
        for index in range(self._count):
            frame, stored = (
                frame_dataset(self._ds, index),
                stored_values(self._ds, index, self._count),
            )
            yield _unpadded(stored, modality_values(stored, frame), frame)


def _palette(values: Values, ds: Dataset) -> tuple[Values, int]:
    """Return the colours [H, W, 3] of palette indices, and the bits of a sample."""
    big = not ds.file_meta.TransferSyntaxUID.is_little_endian
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    if all(f"{name}Data" in ds for name in names):
        descriptors = [ds.get(f"{name}Descriptor") for name in names]
        data = [bytes(ds[f"{name}Data"].value) for name in names]
        tables = [
            read_table(descriptor, table, big, f"{name}Data")
            for descriptor, table, name in zip(descriptors, data, names, strict=True)
        ]
        return np.stack([table(values) for table in tables], axis=-1), tables[0].bits
    colours = apply_color_lut(values, ds)[..., :3]
    return colours, colours.dtype.itemsize * 8


def _unpadded(stored: Values, values: Values, frame: Dataset) -> Values:
    """Return the values without padding, which would stretch the range."""
    padding = is_padding(stored, frame)
    if padding is None or padding.all():
        return values.ravel()
    return values[~padding]


def _spacing(frame: Dataset) -> Spacing | None:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if (spacing := pair_of(frame.get(name))) is not None:
            return spacing
    return None
