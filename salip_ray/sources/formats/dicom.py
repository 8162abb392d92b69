"""DICOM, by pydicom: what a viewer shows.

Modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1; palettes and YBR
become RGB. An enhanced multi-frame object has these values per frame. Greys of up to 8 bits without
a window are taken as they are. Compressed transfer syntaxes need the extra ``dicom``.

Messages never quote the file's data set, whose values may name a patient.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    apply_windowing,
)
from pydicom.pixels.utils import pixel_array

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats.intensity import (
    Grey,
    Range,
    Values,
    range_of,
    to_grey,
    to_rgb,
    window_range,
)
from salip_ray.sources.formats.stack import Spacing, Stack, check_frames, check_pixels, one_line

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GROUPS = (
    "FrameVOILUTSequence",
    "PixelValueTransformationSequence",
    "PixelMeasuresSequence",
)
_DECODERS, _LAST_DECODER = ("pylibjpeg", "pyjpegls", "pillow", "pydicom"), "gdcm"
_FAR = 1e15  # beyond every window
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UI", "UT"})


def read(data: bytes, config: ImageConfig) -> Stack:
    """Open a DICOM file as its frames.

    Raises:
        ImageError: not DICOM, without pixels, or above a limit.
    """
    with quiet():
        ds = _dataset(data)
        if not any(name in ds for name in _PIXELS):
            raise ImageError("the DICOM file holds no pixels")
        try:
            rows, columns, frames = int(ds.Rows), int(ds.Columns), frame_count(ds)
        except (AttributeError, TypeError, ValueError):
            raise ImageError(
                "the DICOM file lacks Rows, Columns or a whole NumberOfFrames"
            ) from None
        check_frames(frames, config)
        check_pixels(columns, rows, config)
        spacing = _spacing(_of_frame(ds, 0))
    pictures = _Frames(ds, frames, config)
    return Stack(frames, "frame" if frames > 1 else "image", pictures.picture, spacing)


def frame_count(ds: Dataset) -> int:
    """NumberOfFrames, 1 where it is not given."""
    return max(1, int(ds.get("NumberOfFrames") or 1))


class _Frames:
    """The frames of a data set; they share one range where the file names no window."""

    def __init__(self, ds: Dataset, count: int, config: ImageConfig) -> None:
        self._ds, self._count, self._config = ds, count, config
        self._range: Range | None = None

    def picture(self, index: int) -> Image:
        with quiet():
            try:
                values = self._decoded(index)
                frame = _of_frame(self._ds, index)
                if values.ndim == 3 or frame.PhotometricInterpretation == "PALETTE COLOR":
                    return self._colour(values)
                grey = self._grey(apply_modality_lut(values, frame), frame)
            except (ImageError, KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            # Decoders raise whatever they meet; those in Rust panic with what is no Exception.
            except BaseException as error:  # noqa: BLE001
                raise ImageError(f"cannot be decoded: {_without_values(error, self._ds)}") from None
        if frame.PhotometricInterpretation == "MONOCHROME1":
            grey = 255 - grey
        return to_rgb(grey)

    def _decoded(self, index: int) -> Values:
        place = index if self._count > 1 else None
        first: Exception | None = None
        for plugin in _decoders(self._ds):
            try:
                values = np.asarray(pixel_array(self._ds, index=place, decoding_plugin=plugin))
                return values.astype(values.dtype.newbyteorder("="), copy=False)
            except Exception as error:  # noqa: BLE001  (the next may be able to)
                first = first or error
        assert first is not None
        raise first

    def _colour(self, values: Values) -> Image:
        bits = int(self._ds.BitsStored)
        if values.ndim == 2:
            values = apply_color_lut(values, self._ds)[..., :3]
            bits = values.dtype.itemsize * 8
        if bits > 8:
            return np.ascontiguousarray(to_grey(values, (0.0, float(2**bits - 1))))
        return np.array(values[..., :3], np.uint8, order="C")

    def _grey(self, values: Values, frame: Dataset) -> Grey:
        if isinstance(self._config.window, Window):
            return to_grey(values, window_range(self._config.window))
        if frame.get("VOILUTSequence"):
            shown = apply_voi_lut(values, frame)
            return to_grey(shown, (0.0, float(2 ** _lut_bits(frame) - 1)))
        if _has_window(frame):
            low, high = apply_windowing(np.array([-_FAR, _FAR]), frame)
            return to_grey(apply_windowing(values, frame), (float(low), float(high)))
        if self._config.window == "from_file" or int(frame.get("BitsStored", 16)) <= 8:
            return to_grey(values, _whole_range(frame, values))
        if self._range is None:
            self._range = self._shared_range(values)
        return to_grey(values, self._range)

    def _shared_range(self, values: Values) -> Range:
        if self._count > 1:
            size = self._count * values.size * values.dtype.itemsize
            if size > self._config.max_bytes:
                raise ImageError(
                    f"its {self._count} frames have {size:,} bytes unpacked, "
                    f"above image.max_bytes = {self._config.max_bytes:,}"
                )
            frames = ((self._decoded(i), _of_frame(self._ds, i)) for i in range(self._count))
            values = np.stack([apply_modality_lut(stored, frame) for stored, frame in frames])
        return range_of(_unpadded(values, self._ds), self._config)


def _decoders(ds: Dataset) -> list[str]:
    """The plugins that may unpack the pixels, best first; one without a name where none is needed.

    What is wrong with a file GDCM throws as a C++ exception, past Python, which ends the process.
    Where another plugin is there it is not even tried, for it would be given the corrupt files.
    """
    try:
        found = set(get_decoder(ds.file_meta.TransferSyntaxUID).available_plugins)
    except (AttributeError, NotImplementedError):
        found = set()  # pydicom says what is wrong
    return [name for name in _DECODERS if name in found] or [_LAST_DECODER] * bool(found) or [""]


def _unpadded(values: Values, ds: Dataset) -> Values:
    """Without what is there only to fill a rectangle, which would stretch the range."""
    padding = ds.get("PixelPaddingValue")
    if padding is None or not isinstance(padding, int):
        return values
    kept = values[values != apply_modality_lut(np.array([padding]), ds)[0]]
    return kept if kept.size else values


def _has_window(frame: Dataset) -> bool:
    return frame.get("WindowCenter") is not None and frame.get("WindowWidth") is not None


def _lut_bits(frame: Dataset) -> int:
    return int(frame.VOILUTSequence[0].LUTDescriptor[2])


def _whole_range(frame: Dataset, values: Values) -> Range:
    """All that BitsStored can hold, rescaled as the values are; of floats what there is."""
    if values.dtype.kind == "f" and "PixelData" not in frame:
        return float(np.nanmin(values)), float(np.nanmax(values))
    bits = int(frame.BitsStored)
    if frame.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(frame.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    signed = int(frame.PixelRepresentation) == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = sorted(float(end) for end in apply_modality_lut(ends, frame))
    return low, high


def _of_frame(ds: Dataset, index: int) -> Dataset:
    """The data set as it is for one frame: shared and own functional groups laid over it."""
    shared = ds.get("SharedFunctionalGroupsSequence") or ()
    own = ds.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*shared[:1], *own[index : index + 1]]
    if not groups:
        return ds
    frame = Dataset()
    frame.update({e.tag: e for e in ds.group_dataset(0x0028)})
    for group in groups:
        for name in _GROUPS:
            for item in group.get(name) or ():
                frame.update(item)
    for name in _PIXELS:
        if name in ds:
            frame[name] = ds[name]
    return frame


def _spacing(frame: Dataset) -> Spacing | None:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = frame.get(name)
        if found is not None and len(found) == 2:
            return float(found[0]), float(found[1])
    return None


def _dataset(data: bytes) -> Dataset:
    try:
        return pydicom.dcmread(io.BytesIO(data), force=data[128:132] != b"DICM")
    except InvalidDicomError:
        raise ImageError("not a DICOM file") from None
    except Exception as error:  # noqa: BLE001  (a corrupt file makes it raise anything)
        raise ImageError(f"not a DICOM file, or a corrupt one: {type(error).__name__}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks, which quote values of the data set, out of warnings and logs."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _without_values(error: BaseException, ds: Dataset) -> str:
    """An error's message without any text that the data set holds."""
    said = one_line(error)
    for element in ds.iterall():
        if element.VR in _TEXT and element.value:
            for value in _each(element.value):
                if len(value) > 1:
                    said = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "...", said)
    return said


def _each(value: Any) -> Iterator[str]:
    values = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else (value,)
    yield from (str(item) for item in values)
