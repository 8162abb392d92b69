"""What the head of a file says: how many pictures it holds, and where a DICOM slice lies."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import pydicom
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.sources.formats import dicom, nifti
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.ordinary import own_pixel_limit
from salip_ray.sources.formats.stack import check_frames
from salip_ray.sources.locations import filesystem, public_uri
from salip_ray.sources.opening import MISSING, ask, open_file, parsed
from salip_ray.sources.readers import read_head
from salip_ray.sources.series import SliceGeometry
from salip_ray.sources.stores import said

_DICOM = frozenset({".dcm", ".dicom"})
_MARK_AT, _MARK = 128, b"DICM"
MARKED_BYTES = _MARK_AT + len(_MARK)  #: what a file with DICOM's mark has at least
_TAGS = [
    "NumberOfFrames",
    "SeriesInstanceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "InstanceNumber",
    "Rows",
    "Columns",
]


@dataclass(frozen=True)
class Header:
    """The head of one file.

    Attributes:
        count: pictures of a file that holds slices, frames or pages; None where it is one picture,
            or cannot be read (its row will say why).
        geometry: of a DICOM slice; None if the file has several frames or no position.
    """

    count: int | None = None
    geometry: SliceGeometry | None = None


def read_header(
    address: str, config: ImageConfig, storage_options: Mapping[str, Any] | None = None
) -> Header:
    """Read the head of a file.

    A file that is missing, closed to us or not of its format gives an empty header, for whoever
    decodes it will say what is wrong.

    Raises:
        InputError: the store fails to give it out. The rows of a job follow from its heads, and are
            frozen: what may be there another time is not guessed.
    """
    ending = suffix(address)
    found = parsed(address, lambda file: _read(file, ending, config), storage_options)
    return found if isinstance(found, Header) else Header()


def _read(file: IO[bytes], ending: str, config: ImageConfig) -> Header:
    if ending in {".nii", ".nii.gz"}:
        return _read_nifti(file, config)
    if ending in {".tif", ".tiff"}:
        with own_pixel_limit(), Pil.open(file, formats=["TIFF"]) as image:
            count = int(getattr(image, "n_frames", 1))
        check_frames(count, config)
        return Header(count if count > 1 else None)
    if ending not in _DICOM and not _is_dicom(file):
        return Header()
    return _read_dicom(file, config)


def holds_dicom(address: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether a file has DICOM's mark; False, too, for one that is missing.

    Raises:
        InputError: the store does not let it be read.
    """

    def head(fs: Any, _: str) -> bytes:
        return read_head(fs, address, MARKED_BYTES)

    found = ask(address, head, storage_options)
    return isinstance(found, bytes) and found[_MARK_AT:MARKED_BYTES] == _MARK


def _is_dicom(file: IO[bytes]) -> bool:
    head = file.read(MARKED_BYTES)
    file.seek(0)
    return head[_MARK_AT:] == _MARK


def _read_nifti(file: IO[bytes], config: ImageConfig) -> Header:
    return Header(nifti.grid_of(_nifti_header(file), config).count)


def read_nifti_header(uri: str, storage_options: Mapping[str, Any] | None = None) -> Any:
    """The header of a NIfTI file, as nibabel has it.

    Raises:
        InputError: the file is missing, cannot be read, or is not NIfTI.
    """
    found = parsed(uri, _nifti_header, storage_options)
    if isinstance(found, MISSING):
        raise InputError(f"{public_uri(uri)} does not exist any more")
    if isinstance(found, InputError):
        raise found
    if isinstance(found, Exception):
        raise InputError(f"{public_uri(uri)} cannot be read: {said(found, uri)}")
    return found


def _nifti_header(file: IO[bytes]) -> Any:
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        head = (gzip.GzipFile(fileobj=file) if zipped else file).read(nifti.HEADER_BYTES)
    except (EOFError, zlib.error) as error:
        raise ImageError(str(error)) from None
    return nifti.read_header(head)


def _read_dicom(file: IO[bytes], config: ImageConfig) -> Header:
    with dicom.quiet():
        ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
        frames = dicom.frame_count(ds)
        check_frames(frames, config)
        if frames > 1:
            return Header(frames)
        orientation, position = ds.get("ImageOrientationPatient"), ds.get("ImagePositionPatient")
        series = ds.get("SeriesInstanceUID")
        if not series or orientation is None or position is None:
            return Header()
        if len(orientation) != 6 or len(position) != 3:
            return Header()
        return Header(
            geometry=SliceGeometry(
                series=str(series),
                orientation=tuple(float(part) for part in orientation),
                position=tuple(float(part) for part in position),
                size=(int(ds.Rows), int(ds.Columns)),
                number=int(ds.get("InstanceNumber") or 0),
                spacing=_pair(ds.get("PixelSpacing")),
            )
        )


def read_frame_geometries(
    address: str, storage_options: Mapping[str, Any] | None = None
) -> list[SliceGeometry]:
    """Where the frames of a multi-frame DICOM object lie, in their order.

    Raises:
        InputError: the file cannot be read, or does not say it of each frame.
    """
    try:
        fs, path = filesystem(address, storage_options)
        with open_file(fs, path) as file, dicom.quiet():
            ds = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            frames = ds.get("PerFrameFunctionalGroupsSequence") or ()
            return [_frame_geometry(ds, frame) for frame in frames]
    except Exception:  # noqa: BLE001  (a message could quote what names a patient)
        raise InputError("its file cannot be read, or its frames have no position") from None


def _frame_geometry(ds: Any, frame: Any) -> SliceGeometry:
    def told(group: str, name: str) -> Any:
        for groups in (frame, *(ds.get("SharedFunctionalGroupsSequence") or ())):
            if group in groups and name in groups[group][0]:
                return groups[group][0][name].value
        return None

    orientation = told("PlaneOrientationSequence", "ImageOrientationPatient")
    return SliceGeometry(
        series=str(ds.get("SeriesInstanceUID")),
        orientation=tuple(float(part) for part in orientation),
        position=tuple(float(p) for p in told("PlanePositionSequence", "ImagePositionPatient")),
        size=(int(ds.Rows), int(ds.Columns)),
        spacing=_pair(told("PixelMeasuresSequence", "PixelSpacing")),
    )


def _pair(values: Any) -> tuple[float, float] | None:
    return (float(values[0]), float(values[1])) if values and len(values) == 2 else None
