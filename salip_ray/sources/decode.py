"""Decode the bytes of one file to RGB pixels; the formats are in ``formats/``."""

from __future__ import annotations

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.schema import Image
from salip_ray.sources import formats
from salip_ray.sources.formats import IMAGE_SUFFIXES, STACK_SUFFIXES
from salip_ray.sources.formats.names import stem, suffix
from salip_ray.sources.formats.stack import Stack

__all__ = [
    "IMAGE_SUFFIXES",
    "STACK_SUFFIXES",
    "check_bytes",
    "decode",
    "is_blank",
    "only_picture",
    "open_stack",
    "picture_at",
    "stem",
    "suffix",
]


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
    return formats.read(data, name, config)


def check_bytes(size: int, limits: ImageConfig) -> None:
    """Raise ImageError if a file of ``size`` bytes is above ``limits.max_bytes``."""
    if size > limits.max_bytes:
        raise ImageError(
            f"the file has {size:,} bytes, above image.max_bytes = {limits.max_bytes:,}"
        )
