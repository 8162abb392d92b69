"""Read DICOM data sets: with or without preamble and meta header, deflated ones within a bound.

pydicom inflates a deflated data set without a limit and refuses pixels without a transfer syntax.
The meta header is therefore read here, and only the data set itself by pydicom.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.formats.dicom_marks import LONG_VRS, MARK, PREAMBLE, SHORT_VRS
from salip_ray.sources.formats.stack import Plane, Spacing

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
HEAD_BYTES = 1 << 24  #: inflated bytes of a deflated data set that may come before its pixels
_META_BYTES = 1 << 20
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


def read_data(data: bytes, config: ImageConfig) -> Dataset:
    """Read the data set of a whole file, its pixels included.

    A deflated one is inflated as far as its rows, columns and frames need.

    Raises:
        ImageError: not DICOM, or corrupt.
    """
    file = io.BytesIO(data)
    start, syntax = _read_meta(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        file.seek(start)
        head = _parse(io.BytesIO(_inflate(file, HEAD_BYTES)), syntax, stop=True)
        try:
            needed = pixel_bytes(head) + HEAD_BYTES
        except (AttributeError, TypeError, ValueError):
            needed = HEAD_BYTES
        file.seek(start)
        file, start = io.BytesIO(_inflate(file, min(needed, config.max_bytes))), 0
    file.seek(start)
    return _parse(file, syntax)


def read_head(file: IO[bytes], keywords: Sequence[str] | None = None) -> Dataset:
    """Read what comes before the pixels of a file; of a deflated one at most :data:`HEAD_BYTES`.

    Args:
        file: at its start.
        keywords: the attributes to read; all by default.

    Raises:
        ImageError: not DICOM, or corrupt.
    """
    start, syntax = _read_meta(file)
    file.seek(start)
    if syntax == DeflatedExplicitVRLittleEndian:
        file = io.BytesIO(_inflate(file, HEAD_BYTES))
    return _parse(file, syntax, stop=True, keywords=keywords)


def pixel_bytes(ds: Dataset) -> int:
    """Return the size of the unpacked pixels of a data set, in bytes.

    Raises:
        AttributeError, TypeError, ValueError: an attribute that this needs is missing or no number.
    """
    samples = int(ds.get("SamplesPerPixel") or 1)
    bits = int(ds.Rows) * int(ds.Columns) * samples * int(ds.BitsAllocated)
    return math.ceil(bits * frame_count(ds) / 8)


def frame_count(ds: Dataset) -> int:
    """Return NumberOfFrames; 1 if it is not given."""
    return max(1, int(ds.get("NumberOfFrames") or 1))


def functional_groups(ds: Dataset, index: int) -> Iterator[Dataset]:
    """Yield the items of an enhanced object that describe one frame: its own, then shared ones."""
    own = ds.get(_PER_FRAME) or ()
    shared = ds.get(_SHARED) or ()
    for group in (*own[index : index + 1], *shared[:1]):
        for element in group:
            if element.VR == "SQ":
                yield from element.value


def plane_of(ds: Dataset, index: int) -> Plane | None:
    """Return where a frame lies in the patient; None if the file does not say so."""
    if frame_count(ds) > 1 and _PER_FRAME not in ds:
        return None  # what it says is of the first frame

    def value(keyword: str) -> Any:
        items = (*functional_groups(ds, index), ds)
        return next((item[keyword].value for item in items if item.get(keyword)), None)

    try:
        with quiet():
            position, turn = value("ImagePositionPatient"), value("ImageOrientationPatient")
            spacing = pair_of(value("PixelSpacing"))
        first = np.array([float(part) for part in position])
        turns = np.array([float(part) for part in turn]).reshape(2, 3)
        down, right = np.array(spacing) * (ds.Rows - 1, ds.Columns - 1)
        corners = np.stack([first, first + right * turns[0], first + down * turns[1]])
    except Exception:  # noqa: BLE001  (values of a corrupt file raise anything)
        return None
    return tuple(corners.ravel().tolist()) if np.isfinite(corners).all() else None


def frame_dataset(ds: Dataset, index: int) -> Dataset:
    """Return what describes the pixels of one frame: group 0028 with functional groups over it."""
    frame = Dataset()
    frame.update({element.tag: element for element in ds.group_dataset(0x0028)})
    for item in reversed(list(functional_groups(ds, index))):
        frame.update({e.tag: e for e in item if e.tag.group == 0x0028})
    for name in (*PIXELS, "NominalScannedPixelSpacing", "ImagerPixelSpacing"):
        if name in ds and name not in frame:
            frame[name] = ds[name]
    frame.file_meta = ds.file_meta
    return frame


def number_of(frame: Dataset, keyword: str) -> float | None:
    """Return a decimal attribute; None if it is missing or empty, as anonymisers leave it.

    Raises:
        ImageError: it is not one finite number. The message names it, not its value.
    """
    try:
        value = frame.get(keyword)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        number = float(value)
    except Exception:  # noqa: BLE001  (pydicom converts values when they are read)
        number = math.nan
    if not math.isfinite(number):
        raise ImageError(f"the DICOM attribute {keyword} is not a number")
    return number


def numbers_of(frame: Dataset, keyword: str) -> list[float]:
    """Return the values of a decimal attribute; nothing if they are missing or not numbers."""
    try:
        value = frame.get(keyword)
        many = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
        return [float(item) for item in many]
    except Exception:  # noqa: BLE001  (pydicom converts values when they are read)
        return []


def pair_of(values: Any) -> Spacing | None:
    """Return a spacing in mm; None if it is missing, not of two values, or not above 0."""
    try:
        rows, columns = (float(value) for value in values)
    except (TypeError, ValueError):
        return None
    sides = rows, columns
    return sides if all(math.isfinite(side) and side > 0 for side in sides) else None


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


def _read_meta(file: IO[bytes]) -> tuple[int, UID]:
    """Return where the data set of a file begins, and its transfer syntax (empty if unknown)."""
    head = file.read(1 << 16)
    start = PREAMBLE + len(MARK) if head[PREAMBLE : PREAMBLE + len(MARK)] == MARK else 0
    meta = _meta_end(head, start)
    if meta is None:
        head += file.read(_META_BYTES - len(head))
        meta = _meta_end(head, start)
    if meta is None:
        raise ImageError("the meta header of the DICOM file is corrupt or longer than 1 MiB")
    end, syntax = meta
    if not syntax:
        syntax = _guess_syntax(head[end : end + 6])
    elif syntax.is_private:
        syntax = UID(ExplicitVRLittleEndian)
    return end, syntax


def _meta_end(head: bytes, start: int) -> tuple[int, UID] | None:
    """Return where the meta header ends, and TransferSyntaxUID; None if ``head`` is too short."""
    at, syntax = start, ""
    while head[at : at + 2] == b"\x02\x00":
        vr = head[at + 4 : at + 6]
        if vr in LONG_VRS:
            body, length = at + 12, int.from_bytes(head[at + 8 : at + 12], "little")
        elif vr in SHORT_VRS:
            body, length = at + 8, int.from_bytes(head[at + 6 : at + 8], "little")
        else:  # implicit, against the standard
            body, length = at + 8, int.from_bytes(head[at + 4 : at + 8], "little")
        if head[at + 2 : at + 4] == b"\x10\x00":
            syntax = head[body : body + length].decode("ascii", "replace").strip("\0 ")
        at = body + length
        if at > len(head):
            return None
    return at, UID(syntax)


def _guess_syntax(head: bytes) -> UID:
    """Return the transfer syntax of a data set by its first element."""
    group, vr = head[:2], head[4:6]
    if vr not in LONG_VRS | SHORT_VRS:
        return UID(ImplicitVRLittleEndian)
    big = group[:1] == b"\0" and group[1:] != b"\0"
    return UID(ExplicitVRBigEndian if big else ExplicitVRLittleEndian)


def _inflate(file: IO[bytes], limit: int) -> bytes:
    """Return at most ``limit`` bytes of a raw deflate stream."""
    stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    parts: list[bytes] = []
    remaining = limit
    try:
        while remaining > 0 and not stream.eof and (chunk := file.read(1 << 16)):
            while chunk and remaining > 0:
                parts.append(stream.decompress(chunk, remaining))
                remaining -= len(parts[-1])
                chunk = stream.unconsumed_tail
    except zlib.error:
        raise ImageError("the deflated DICOM data set is corrupt") from None
    return b"".join(parts)


def _parse(
    file: IO[bytes], syntax: UID, *, stop: bool = False, keywords: Iterable[str] | None = None
) -> Dataset:
    def at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:
        return int(tag) in _PIXEL_TAGS

    try:
        ds = read_dataset(
            cast("BinaryIO", file),
            syntax == ImplicitVRLittleEndian,
            syntax != ExplicitVRBigEndian,
            stop_when=at_pixels if stop else None,
            specific_tags=None if keywords is None else [Tag(keyword) for keyword in keywords],
        )
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001  (a corrupt file makes it raise anything)
        raise ImageError(f"not a DICOM file, or a corrupt one: {type(error).__name__}") from None
    ds.file_meta = FileMetaDataset()
    plain = syntax == DeflatedExplicitVRLittleEndian
    ds.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian) if plain else syntax
    return ds
