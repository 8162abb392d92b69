"""Turn stored DICOM values into grey: modality LUT or rescale, padding, and VOI LUT or window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from salip_ray.errors import ImageError
from salip_ray.sources.formats.dicom_dataset import number_of, numbers_of
from salip_ray.sources.formats.intensity import Grey, Range, Values, to_grey

_PADDING = (
    ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)


@dataclass(frozen=True)
class LookupTable:
    """A DICOM look-up table: ``first`` is the value of entry 0, ``bits`` those of an entry."""

    first: int
    bits: int
    entries: npt.NDArray[Any]

    def __call__(self, values: Values) -> Values:
        """Return the entry of each value; values outside take the first or last entry."""
        wide = np.rint(values).astype(np.int64) - self.first
        return np.asarray(self.entries[np.clip(wide, 0, self.entries.size - 1)])

    @property
    def range(self) -> Range:
        """Least and largest value that the bits of an entry can hold."""
        return 0.0, float(2**self.bits - 1)


def read_table(descriptor: Any, data: Any, big_endian: bool, keyword: str) -> LookupTable:
    """Read a look-up table of 8 to 16 bits, as bytes or as numbers.

    Raises:
        ImageError: it is empty or corrupt; the message names ``keyword``.
    """
    try:
        count, first, bits = (int(value) for value in descriptor)
        count = count or 1 << 16
        if isinstance(data, bytes):
            wide = len(data) >= 2 * count
            raw = np.frombuffer(data, (">u2" if big_endian else "<u2") if wide else np.uint8)
        else:
            raw = np.asarray(data, np.int64).astype(np.uint16).ravel()
            if bits <= 8 and raw.size < count:  # two entries in each word
                raw = np.frombuffer(raw.astype("<u2").tobytes(), np.uint8)
        entries = raw[:count].astype(np.uint8 if bits == 8 else np.uint16)
    except (TypeError, ValueError):
        entries, bits, first = np.empty(0, np.uint16), 0, 0
    if not entries.size or not 8 <= bits <= 16:
        raise ImageError(f"the look-up table of the DICOM attribute {keyword} is corrupt")
    return LookupTable(first, bits, entries)


def modality_values(stored: Values, frame: Dataset) -> Values:
    """Return stored values in the units of the modality: by its LUT, else rescaled.

    Raises:
        ImageError: the LUT, RescaleSlope or RescaleIntercept cannot be used.
    """
    if table := sequence_table(frame, "ModalityLUTSequence"):
        return table(stored)
    slope, intercept = rescale_of(frame)
    if slope is None and intercept is None:
        return stored
    values = stored.astype(np.float64) * (slope or 1.0)  # 0 would leave no picture
    values += intercept or 0.0
    return values


def rescale_of(frame: Dataset) -> tuple[float | None, float | None]:
    """Return slope and intercept; None for one that is missing or empty."""
    return number_of(frame, "RescaleSlope"), number_of(frame, "RescaleIntercept")


def sequence_table(frame: Dataset, keyword: str) -> LookupTable | None:
    """Return the table of a LUT sequence, if the frame has one."""
    items = frame.get(keyword)
    if not items:
        return None
    item = items[0]
    big = not frame.file_meta.TransferSyntaxUID.is_little_endian
    return read_table(item.get("LUTDescriptor"), item.get("LUTData"), big, keyword)


def is_padding(stored: Values, frame: Dataset) -> npt.NDArray[np.bool_] | None:
    """Return which stored values only fill the rectangle; None if the file names no padding.

    A value of the other signedness, as some writers leave it, means the same bits.
    """
    for keyword, limit in _PADDING:
        ends = [_as_stored(value, stored.dtype, frame) for value in numbers_of(frame, keyword)[:1]]
        if not ends:
            continue
        ends += [_as_stored(value, stored.dtype, frame) for value in numbers_of(frame, limit)[:1]]
        return np.asarray((stored >= min(ends)) & (stored <= max(ends)))
    return None


def _as_stored(value: float, dtype: np.dtype[Any], frame: Dataset) -> float:
    if dtype.kind not in "iu":
        return value
    span = 1 << int(frame.get("BitsAllocated") or dtype.itemsize * 8)
    signed = dtype.kind == "i"
    if signed and value >= span // 2:
        return value - span
    return value + span if not signed and value < 0 else value


def whole_range(frame: Dataset, values: Values) -> Range:
    """Return all that BitsStored can hold, rescaled as the values are; of floats their range."""
    if "PixelData" not in frame:
        return float(np.nanmin(values)), float(np.nanmax(values))
    if table := sequence_table(frame, "ModalityLUTSequence"):
        return table.range
    bits = int(frame.BitsStored)
    signed = int(frame.PixelRepresentation) == 1
    ends = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1]
    low, high = sorted(float(end) for end in modality_values(np.array(ends), frame))
    return low, high


@dataclass(frozen=True)
class FileWindow:
    """A window that a DICOM file names, with its VOI LUT function."""

    center: float
    width: float
    function: str

    def grey(self, values: Values, limits: Range) -> Grey:
        """Return the grey of values; ``limits`` are those of the output of the function."""
        low, high = limits
        wide = values.astype(np.float64)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                shown = (high - low) / (1 + np.exp(-4 * (wide - self.center) / self.width)) + low
            return to_grey(shown, limits)
        center, width = self.center, self.width
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1
        below, above = wide <= center - width / 2, wide > center + width / 2
        between = ~(below | above)
        wide[below], wide[above] = low, high
        if between.any():
            wide[between] = ((wide[between] - center) / width + 0.5) * (high - low) + low
        return to_grey(wide, limits)


def file_window(frame: Dataset) -> FileWindow | None:
    """Return the first possible window of a frame; None if it names none.

    LINEAR is not defined for widths below 1: such a width means LINEAR_EXACT.
    """
    function = str(frame.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
        function = "LINEAR"
    pairs = zip(numbers_of(frame, "WindowCenter"), numbers_of(frame, "WindowWidth"), strict=False)
    for center, width in pairs:
        if math.isfinite(center) and math.isfinite(width) and width > 0:
            exact = function == "LINEAR" and width < 1
            return FileWindow(center, width, "LINEAR_EXACT" if exact else function)
    return None


def voi_table(frame: Dataset, limits: Range) -> LookupTable | None:
    """Return the VOI LUT of a frame, if it has one; ``limits`` are those of its input."""
    table = sequence_table(frame, "VOILUTSequence")
    if table is not None and table.first >= 1 << 15 and limits[0] < 0:
        return LookupTable(table.first - (1 << 16), table.bits, table.entries)  # VR US for SS
    return table
