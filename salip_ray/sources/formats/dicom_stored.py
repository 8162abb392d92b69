"""The stored values of a DICOM frame, unpacked by pydicom's decoders."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from salip_ray.errors import ImageError
from salip_ray.sources.formats.codestreams import Codestream, read_codestream
from salip_ray.sources.formats.dicom_dataset import pixel_bytes
from salip_ray.sources.formats.intensity import Values

_DECODERS, _LAST_DECODER = ("pylibjpeg", "pyjpegls", "pillow", "pydicom"), "gdcm"


def stored_values(ds: Dataset, index: int, count: int) -> Values:
    """Return the stored values of a frame: [H, W] or [H, W, samples].

    Args:
        ds: the data set.
        index: of the frame.
        count: number of frames.

    Raises:
        ImageError: no installed decoder can unpack them.
    """
    encoded = ds.file_meta.TransferSyntaxUID.is_encapsulated
    codestream = _codestream(ds, index, count) if encoded else None
    shift = 0 if encoded else _high_bit(ds) + 1 - int(ds.get("BitsStored") or 0)
    frame_index = index if count > 1 else None
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
    raise ImageError(_why(ds, codestream, tried=bool(plugins)))


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


def _codestream(ds: Dataset, index: int, count: int) -> Codestream | None:
    """Return the header of an encoded frame, if it is of a kind that has one.

    Raises:
        ImageError: a decoder would unpack other pixels than the data set describes.
    """
    try:
        extended = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
        header = read_codestream(
            get_frame(
                ds.PixelData,
                index,
                number_of_frames=count,
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


def _why(ds: Dataset, header: Codestream | None, *, tried: bool) -> str:
    """Return the reason why no decoder unpacked the values."""
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
