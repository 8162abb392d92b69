"""Read reference masks from image files: the stored values, never those of a lossy format."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.formats import tiff
from salip_ray.sources.formats.intensity import Values
from salip_ray.sources.formats.pillow_images import own_pixel_limit
from salip_ray.sources.formats.stack import check_pixels
from salip_ray.sources.formats.tiff_pages import MAGICS

ClassIds = npt.NDArray[np.int32]  #: shape [H, W]
_JPEG = b"\xff\xd8"
_LARGEST = int(np.iinfo(np.int32).max)


def read_mask_file(
    data: bytes, index: int | None, shown: str, config: ImageConfig
) -> tuple[int, Values]:
    """Return the number of pages of a mask file, and the stored values of one page.

    Args:
        data: the whole file.
        index: of the page; None for the first.
        shown: the name of the file in messages.
        config: ``max_pixels`` and ``max_frames`` bound the mask, too.

    Raises:
        ImageError: the file cannot be read, or its format does not keep values.
    """
    if data[:2] == _JPEG or b"VP8 " in _webp_chunks(data):
        raise ImageError(_lossy(shown, "JPEG" if data[:2] == _JPEG else "lossy WebP"))
    try:
        if data[:4] in MAGICS:
            return _tiff_page(data, index or 0, shown, config)
        with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=["PNG", "WEBP"]) as file:
            check_pixels(*file.size, config)
            return 1, np.asarray(file)
    except ImageError as error:
        name = f"reference mask {shown}"
        known = str(error).startswith(name)
        raise (error if known else ImageError(f"{name} cannot be read: {error}")) from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
        raise ImageError(
            f"reference mask {shown} cannot be read: no PNG, TIFF or WebP image, or damaged"
        ) from None


def as_class_ids(values: Values, shown: str) -> ClassIds:
    """Return values as class ids [H, W].

    Raises:
        ImageError: they are not one whole number a pixel.
    """
    if values.ndim == 3 and values.shape[2] in {2, 4}:
        if (values[..., -1] != values[..., -1].max()).any():
            raise ImageError(
                f"reference mask {shown} has transparent pixels: save it without transparency"
            )
        values = values[..., :-1]
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]  # grey saved as RGB
    whole = values.dtype == np.bool_ or values.dtype.kind in "iu"
    if values.dtype.kind == "f":
        whole = bool(np.isfinite(values).all() and (values == np.rint(values)).all())
    if values.ndim != 2 or not whole:
        raise ImageError(
            f"reference mask {shown} must hold one whole number a pixel, "
            f"found {values.dtype} of shape {list(values.shape)}"
        )
    if values.size and not -_LARGEST <= values.min() <= values.max() <= _LARGEST:
        raise ImageError(f"reference mask {shown} holds values beyond 32 bits")
    return np.asarray(values).astype(np.int32)


def _tiff_page(data: bytes, index: int, shown: str, config: ImageConfig) -> tuple[int, Any]:
    pages = tiff.page_kinds(data, config)
    if any(kind.lossy for kind in pages):
        raise ImageError(_lossy(shown, "TIFF with a lossy compression"))
    if pages[0].inverted_labels:
        raise ImageError(
            f"reference mask {shown} is WhiteIsZero with more than 8 bits: its values are not ids"
        )
    if index >= len(pages):
        return len(pages), np.zeros((0, 0), np.uint8)  # the caller compares the numbers of slices
    return len(pages), tiff.read_values(data, index, config)


def _lossy(shown: str, kind: str) -> str:
    return (
        f"reference mask {shown} is {kind}, which changes values at the edges of regions: "
        "save masks as PNG or as TIFF without lossy compression"
    )


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the names of the chunks of a WebP file; nothing for other files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    at = 12
    while at + 8 <= len(data):
        yield data[at : at + 4]
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
