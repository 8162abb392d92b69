"""The formats of images: one module each, and the table that chooses.

A reader takes the bytes of a file and gives a :class:`~salip_ray.sources.formats.stack.Stack`, the
pictures that the file holds. To add a format, write a reader and enter its suffixes here.
"""

from __future__ import annotations

from salip_ray.config import ImageConfig
from salip_ray.sources.formats import dicom, nifti, ordinary
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.stack import Reader, Stack

_BY_SUFFIX: dict[str, Reader] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"), ordinary.read),
    **dict.fromkeys((".dcm", ".dicom"), dicom.read),
    **dict.fromkeys((".nii", ".nii.gz"), nifti.read),
}

IMAGE_SUFFIXES = frozenset(_BY_SUFFIX)
"""Names that a listing takes for images."""

STACK_SUFFIXES = frozenset({".tif", ".tiff", ".dcm", ".dicom", ".nii", ".nii.gz"})
"""Names of files that may hold several pictures, or one slice of a series."""


def read(data: bytes, name: str, config: ImageConfig) -> Stack:
    """Open the bytes of a file; what no suffix names is left to Pillow, which looks at the bytes.

    Raises:
        ImageError: not a file of a known format, corrupt, or above a limit.
    """
    if data[128:132] == b"DICM":  # DICOM files often have no suffix
        return dicom.read(data, config)
    return _BY_SUFFIX.get(suffix(name), ordinary.read)(data, config)
