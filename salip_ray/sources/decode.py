"""Decode the bytes of one file to RGB pixels.

To add a format, write a reader in ``formats/`` and enter its suffixes here.
"""

from __future__ import annotations

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources.formats import ordinary
from salip_ray.sources.formats.dicom_marks import is_dicom
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.stack import Reader, Stack

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".dc3", ".ima"})
"""Names of DICOM files that have a suffix; ``.ima`` is Siemens'."""

NIFTI_SUFFIXES = frozenset({".nii", ".nii.gz"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
ORDINARY_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"}) | TIFF_SUFFIXES


def _read_dicom(data: bytes, config: ImageConfig) -> Stack:
    # pydicom and nibabel take half a second of every process that imports them.
    from salip_ray.sources.formats import dicom

    return dicom.read(data, config)


def _read_nifti(data: bytes, config: ImageConfig) -> Stack:
    from salip_ray.sources.formats import nifti

    return nifti.read(data, config)


_BY_SUFFIX: dict[str, Reader] = {
    **dict.fromkeys(ORDINARY_SUFFIXES, ordinary.read),
    **dict.fromkeys(DICOM_SUFFIXES, _read_dicom),
    **dict.fromkeys(NIFTI_SUFFIXES, _read_nifti),
}

IMAGE_SUFFIXES = frozenset(_BY_SUFFIX)
"""Names that a listing takes for images."""

NOT_DICOM_SUFFIXES = IMAGE_SUFFIXES - DICOM_SUFFIXES
"""Other names may be those of DICOM files, which often have no suffix, or the digits of a UID."""

STACK_SUFFIXES = TIFF_SUFFIXES | NIFTI_SUFFIXES | DICOM_SUFFIXES
"""Names of files that may hold several pictures, or one slice of a series."""


def decode(data: bytes, name: str, limits: ImageConfig) -> Image:
    """Decode a file that holds one picture.

    Args:
        data: the whole file.
        name: its URI; the suffix decides if the bytes alone do not.
        limits: ``max_bytes`` of the file and ``max_pixels`` of the image, and how intensities of
            more than 8 bits become grey.

    Returns:
        uint8 RGB of shape [H, W, 3], C-contiguous and writable.

    Raises:
        ImageError: empty, too large, truncated, corrupt, of a format that is not supported, or of
            several pictures.
    """
    return only_picture(open_stack(data, name, limits))


def only_picture(stack: Stack) -> Image:
    """Return the picture of a stack of one.

    Raises:
        ImageError: it has several pictures, or the picture cannot be decoded.
    """
    if stack.count != 1:
        raise ImageError(
            f"the file holds {stack.count} {stack.kind}s, and one picture was expected"
        )
    return stack.picture(0)


def picture_at(stack: Stack, index: int) -> Image:
    """Return a picture of a stack of several.

    Raises:
        ImageError: there is none of that index, or it cannot be decoded.
    """
    if not 0 <= index < stack.count:
        raise ImageError(
            f"the file holds {stack.count} {stack.kind}s, 0 to {stack.count - 1}: "
            f"{index} is not among them"
        )
    return stack.picture(index)


def is_blank(image: Image) -> bool:
    """Return True if all pixels of a picture are equal."""
    return bool((image == image[0, 0]).all())


def open_stack(data: bytes, name: str, config: ImageConfig) -> Stack:
    """Open a file as a stack of pictures; arguments and errors are those of :func:`decode`."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    check_bytes(len(data), config)
    reader = _BY_SUFFIX.get(suffix(name))
    if data[128:132] == b"DICM" or (reader is None and is_dicom(data[:256])):
        return _read_dicom(data, config)  # DICOM files often have no suffix
    return (reader or ordinary.read)(data, config)  # Pillow looks at the bytes


def check_bytes(size: int, limits: ImageConfig) -> None:
    """Raise ImageError if a file of ``size`` bytes is above ``limits.max_bytes``."""
    if size > limits.max_bytes:
        raise ImageError(
            f"the file has {size:,} bytes, above image.max_bytes = {limits.max_bytes:,}"
        )
