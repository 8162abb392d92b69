"""Read the head of a file: the number of its pictures, and the position of a DICOM slice."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.sources.decode import DICOM_SUFFIXES, NIFTI_SUFFIXES, TIFF_SUFFIXES
from salip_ray.sources.formats.dicom_marks import is_dicom
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.tiff_pages import page_offsets
from salip_ray.sources.locations import filesystem, public_uri
from salip_ray.sources.opening import MISSING, ask, open_file, parsed, read_head
from salip_ray.sources.series import SliceGeometry
from salip_ray.sources.stores import describe_error

MARKED_BYTES = 132  #: enough of a file to know whether it is DICOM


@dataclass(frozen=True)
class Header:
    """Content of the head of one file.

    Attributes:
        count: how many slices, frames or pages a file of several holds; None for one picture, or if
            the head cannot be read (the row of the file will report why).
        geometry: of a DICOM slice; None if the file has several frames or no position.
        series: SeriesInstanceUID of a DICOM file.
    """

    count: int | None = None
    geometry: SliceGeometry | None = None
    series: str | None = None


def read_header(
    address: str, config: ImageConfig, storage_options: Mapping[str, Any] | None = None
) -> Header:
    """Read the head of a file.

    A file that is missing, not readable or not of its format gives an empty header: the reason is
    reported when it is decoded.

    Raises:
        InputError: the store fails. The rows of a job follow from the heads of its files and are
            frozen, so they must not depend on a failure that passes.
    """
    ending = suffix(address)
    header = parsed(address, lambda file: _read(file, ending, config), storage_options)
    return header if isinstance(header, Header) else Header()


def _read(file: IO[bytes], ending: str, config: ImageConfig) -> Header:
    if ending in NIFTI_SUFFIXES:
        return _read_nifti(file, config)
    if ending in TIFF_SUFFIXES:
        count = len(page_offsets(file, config))
        return Header(count if count > 1 else None)
    if ending not in DICOM_SUFFIXES and not _is_dicom(file):
        return Header()
    return _read_dicom(file, config)


def holds_dicom(address: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Return True if a file begins as DICOM does; False if it does not, or is missing.

    Raises:
        InputError: the store does not let it be read.
    """

    def head(fs: Any, _: str) -> bytes:
        return read_head(fs, address, MARKED_BYTES)

    answer = ask(address, head, storage_options)
    return isinstance(answer, bytes) and is_dicom(answer)


def _is_dicom(file: IO[bytes]) -> bool:
    head = file.read(MARKED_BYTES)
    file.seek(0)
    return is_dicom(head)


def _read_nifti(file: IO[bytes], config: ImageConfig) -> Header:
    from salip_ray.sources.formats import nifti

    return Header(nifti.grid_of(_nifti_header(file), config).count)


def read_nifti_header(uri: str, storage_options: Mapping[str, Any] | None = None) -> Any:
    """Return the header of a NIfTI file, as nibabel represents it.

    Raises:
        InputError: the file is missing, cannot be read, or is not NIfTI.
    """
    header = parsed(uri, _nifti_header, storage_options)
    if isinstance(header, MISSING):
        raise InputError(f"{public_uri(uri)} does not exist any more")
    if isinstance(header, InputError):
        raise header
    if isinstance(header, Exception):
        raise InputError(f"{public_uri(uri)} cannot be read: {describe_error(header, uri)}")
    return header


def _nifti_header(file: IO[bytes]) -> Any:
    from salip_ray.sources.formats import nifti

    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        head = (gzip.GzipFile(fileobj=file) if zipped else file).read(nifti.HEADER_BYTES)
    except (EOFError, zlib.error) as error:
        raise ImageError(str(error)) from None
    return nifti.read_header(head)


def _read_dicom(file: IO[bytes], config: ImageConfig) -> Header:
    # Not imported with this module: pydicom and nibabel take half a second of every process.
    from salip_ray.sources import dicom_headers

    return Header(*dicom_headers.read(file, config))


def read_frame_geometries(
    address: str, storage_options: Mapping[str, Any] | None = None
) -> list[SliceGeometry]:
    """Read where the frames of a multi-frame DICOM object lie, in their order.

    Raises:
        InputError: the file cannot be read, or a frame has no position.
    """
    from salip_ray.sources import dicom_headers

    try:
        fs, path = filesystem(address, storage_options)
        with open_file(fs, path) as file:
            geometries = dicom_headers.read_frames(file)
    except Exception:  # noqa: BLE001  (a message could quote values that name a patient)
        raise InputError("its file cannot be read") from None
    if not geometries or None in geometries:
        raise InputError("its frames have no position")
    return [geometry for geometry in geometries if geometry is not None]
