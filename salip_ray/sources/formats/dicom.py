"""DICOM, by pydicom: what a viewer shows.

Modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1; palettes and YBR
become RGB. An enhanced multi-frame object has these values per frame. Greys of up to 8 bits without
a window are not scaled. Compressed transfer syntaxes need the extra ``dicom``.

Messages quote neither the file's data set, whose values may name a patient, nor pydicom.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats.codestreams import Codestream, read_codestream
from salip_ray.sources.formats.dicom_dataset import (
    PIXELS,
    frame_count,
    frame_dataset,
    pair_of,
    pixel_bytes,
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

_DECODERS, _LAST_DECODER = ("pylibjpeg", "pyjpegls", "pillow", "pydicom"), "gdcm"
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
    return Stack(frames, kind, pictures.picture, spacing, pictures.intensities)


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
            stored = self._stored(index)
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
            values = modality_values(self._stored(index), frame)
        inverted = frame.PhotometricInterpretation == "MONOCHROME1"
        return -values.astype(np.float64) if inverted else values

    def _stored(self, index: int) -> Values:
        """Return the stored values of a frame: [H, W] or [H, W, samples]."""
        ds = self._ds
        encoded = ds.file_meta.TransferSyntaxUID.is_encapsulated
        codestream = self._codestream(index) if encoded else None
        shift = 0 if encoded else _high_bit(ds) + 1 - int(ds.get("BitsStored") or 0)
        frame_index = index if self._count > 1 else None
        plugins = _decoders(ds)
        for plugin in plugins:
            try:
                values = np.asarray(
                    pixel_array(
                        ds,
                        index=frame_index,
                        decoding_plugin=plugin,
                        correct_unused_bits=shift <= 0,
                    )
                )
            except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
                raise
            except Exception:  # noqa: BLE001, S112  (decoders raise anything; the next may succeed)
                continue
            except BaseException:  # noqa: BLE001  (decoders in Rust panic with what is no Exception)
                break
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
            return _shifted(values, shift, ds) if shift > 0 else values
        raise ImageError(self._why(codestream, bool(plugins)))

    def _codestream(self, index: int) -> Codestream | None:
        """Return the header of an encoded frame, if it is of a kind that has one.

        Raises:
            ImageError: a decoder would unpack other pixels than the data set describes.
        """
        ds = self._ds
        try:
            extended = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
            header = read_codestream(
                get_frame(
                    ds.PixelData,
                    index,
                    number_of_frames=self._count,
                    extended_offsets=extended if all(extended) else None,
                )
            )
        except Exception:  # noqa: BLE001  (pydicom raises many kinds)
            raise ImageError("the encoded pixels are corrupt or truncated") from None
        if header is None:
            return None
        rows, columns, samples = int(ds.Rows), int(ds.Columns), int(ds.SamplesPerPixel)
        if (header.columns, header.rows) != (columns, rows) or header.samples != samples:
            raise ImageError(
                f"its {header.kind} data has {header.columns} x {header.rows} pixels of "
                f"{header.samples} samples, but Columns x Rows are {columns} x {rows} and "
                f"SamplesPerPixel is {samples}"
            )
        return header

    def _why(self, header: Codestream | None, tried: bool) -> str:
        ds = self._ds
        syntax = ds.file_meta.TransferSyntaxUID
        if not syntax.is_encapsulated:
            size, needed = len(ds.get("PixelData") or b""), pixel_bytes(ds)
            if "PixelData" in ds and size < needed:
                return f"truncated: the pixels have {size:,} bytes, {needed:,} are needed"
            return "cannot be decoded: an attribute of its pixels is missing or corrupt"
        name = syntax.name if syntax.is_transfer_syntax else "of an unknown transfer syntax"
        if header is not None and header.lossy_12_bit:
            return "no installed decoder reads 12-bit lossy JPEG (pylibjpeg-libjpeg does)"
        if not tried:
            return f"no decoder is installed for {name}: install salip-ray[dicom]"
        return f"cannot be decoded: its pixels ({name}) are corrupt, truncated or of a rare kind"

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
            frame, stored = frame_dataset(self._ds, index), self._stored(index)
            yield _unpadded(stored, modality_values(stored, frame), frame)


def _decoders(ds: Dataset) -> list[str]:
    """Return the plugins that may unpack the pixels, best first; ``[""]`` if none is needed.

    GDCM throws a C++ exception past Python if a file is corrupt, which ends the process. It is only
    tried if there is no other plugin, or corrupt files would reach it.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return [""]
    try:
        available = set(get_decoder(syntax).available_plugins)
    except NotImplementedError:
        return []
    first = [name for name in _DECODERS if name in available]
    return first or [_LAST_DECODER] * bool(available)


def _high_bit(ds: Dataset) -> int:
    """Return HighBit; that of values without a shift if it is missing or impossible."""
    stored = int(ds.get("BitsStored") or 0)
    high = ds.get("HighBit")
    possible = isinstance(high, int) and stored <= high + 1 <= int(ds.get("BitsAllocated") or 0)
    return int(high) if possible else stored - 1


def _shifted(values: Values, shift: int, ds: Dataset) -> Values:
    """Return values whose bits end at HighBit, moved down and with their sign."""
    bits, width = int(ds.BitsStored), values.dtype.itemsize * 8
    up = width - bits - shift
    return np.right_shift(np.left_shift(values, up), width - bits)


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
