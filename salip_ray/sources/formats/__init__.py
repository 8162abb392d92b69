"""Readers of image formats, one module each, and the table that chooses one.

A reader turns the bytes of a file into a :class:`~salip_ray.sources.formats.stack.Stack`, the
pictures that the file holds. To add a format, write a reader and enter its suffixes here.
"""

from __future__ import annotations

from salip_ray.config import ImageConfig
from salip_ray.sources.formats import dicom, nifti, ordinary
from salip_ray.sources.formats.dicom_dataset import is_dicom
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.stack import Reader, Stack

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".dc3", ".ima"})
"""Names of DICOM files that have a suffix; ``.ima`` is Siemens'."""

NIFTI_SUFFIXES = frozenset({".nii", ".nii.gz"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})

_BY_SUFFIX: dict[str, Reader] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", *TIFF_SUFFIXES), ordinary.read),
    **dict.fromkeys(DICOM_SUFFIXES, dicom.read),
    **dict.fromkeys(NIFTI_SUFFIXES, nifti.read),
}

IMAGE_SUFFIXES = frozenset(_BY_SUFFIX)
"""Names that a listing takes for images."""

STACK_SUFFIXES = TIFF_SUFFIXES | NIFTI_SUFFIXES | DICOM_SUFFIXES
"""Names of files that may hold several pictures, or one slice of a series."""


def read(data: bytes, name: str, config: ImageConfig) -> Stack:
    """Open the bytes of a file; without a known suffix Pillow looks at the bytes.

    Raises:
        ImageError: not a file of a known format, corrupt, or above a limit.
    """
    reader = _BY_SUFFIX.get(suffix(name))
    if data[128:132] == b"DICM" or (reader is None and is_dicom(data[:256])):
        return dicom.read(data, config)  # DICOM files often have no suffix
    return (reader or ordinary.read)(data, config)
