"""From the bytes of one file to RGB pixels.

The place of every format is the table ``_BY_SUFFIX``; what is not in it is opened by Pillow, which
looks at the bytes and not at the name.

What becomes of unusual pixels: EXIF orientation is applied; transparency is composited on black;
CMYK and palettes are converted to RGB; grey is repeated three times; greys of more than 8 bits (16-
and 32-bit integers, floats) are stretched linearly from their 0.5th to their 99.5th percentile, for
scanners use a small and varying part of the range. A file of several pages or frames is refused, as
labelling its first would lose the others silently.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from PIL import ImageOps, UnidentifiedImageError

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.rows import Image

_PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_STRETCH = (0.5, 99.5)  # percentiles
_PIL_LIMIT = threading.Lock()

Decoder = Callable[[bytes, ImageConfig], Image]


def decode(data: bytes, name: str, limits: ImageConfig) -> Image:
    """Decode an image file.

    Args:
        data: the whole file.
        name: its URI; the suffix decides where the bytes alone do not.
        limits: ``max_bytes`` of the file and ``max_pixels`` of the image.

    Returns:
        uint8 RGB of shape [H, W, 3], C-contiguous and writable.

    Raises:
        ImageError: empty, too large, truncated, corrupt, or of a format that is not supported.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    check_bytes(len(data), limits)
    return _decoder(data, name)(data, limits)


def check_bytes(size: int, limits: ImageConfig) -> None:
    """Raise ImageError where a file of ``size`` bytes is above ``limits.max_bytes``."""
    if size > limits.max_bytes:
        raise ImageError(
            f"the file has {size:,} bytes, above image.max_bytes = {limits.max_bytes:,}"
        )


def suffix(name: str) -> str:
    """The lower-case suffix of a URI, ``.gz`` joined to the one before it (``.nii.gz``)."""
    tail = name.partition("?")[0].rpartition("/")[2].lower()
    stem, dot, last = tail.rpartition(".")
    if last == "gz" and "." in stem:
        return f".{stem.rpartition('.')[2]}.gz"
    return f".{last}" if dot and stem else ""


def stem(name: str) -> str:
    """The file name of a URI without its folder, its query and its suffix."""
    tail = name.partition("?")[0].rpartition("/")[2]
    ending = suffix(name)
    return tail[: len(tail) - len(ending)] if ending else tail


def _decoder(data: bytes, name: str) -> Decoder:
    if data[128:132] == b"DICM":  # DICOM files often have no suffix
        return _BY_SUFFIX[".dcm"]
    return _BY_SUFFIX.get(suffix(name), _decode_with_pillow)


def _not_yet(kind: str, advice: str) -> Decoder:
    def refuse(*_: object) -> Image:
        raise ImageError(f"{kind} is not supported yet: {advice}")

    return refuse


def _decode_with_pillow(data: bytes, limits: ImageConfig) -> Image:
    try:
        with _own_pixel_limit(), Pil.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as file:
            width, height = file.size
            if width * height > limits.max_pixels:
                raise ImageError(
                    f"the image has {width} x {height} pixels, "
                    f"above image.max_pixels = {limits.max_pixels:,}"
                )
            frames = getattr(file, "n_frames", 1)
            # A JPEG with more (MPO) holds previews of the same picture.
            if frames > 1 and file.format in {"TIFF", "PNG", "WEBP"}:
                raise ImageError(f"the file holds {frames} pages: write one file for each")
            file.load()
            upright = ImageOps.exif_transpose(file)
            return _to_rgb(upright)
    except UnidentifiedImageError:
        raise ImageError(
            f"not a PNG, JPEG, TIFF or WebP image (the file begins with {data[:8]!r})"
        ) from None
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
        raise ImageError(f"corrupt or truncated: {_one_line(error)}") from None


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    """Let ``max_pixels`` decide: Pillow's own limit is global and lower than ours."""
    with _PIL_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no reason to say anything
        before, Pil.MAX_IMAGE_PIXELS = Pil.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Pil.MAX_IMAGE_PIXELS = before


def _to_rgb(image: Pil.Image) -> Image:
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_stretch(np.asarray(image))[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Pil.new("RGBA", image.size, (0, 0, 0, 255))
        image = Pil.alpha_composite(black, image)
    return np.array(image.convert("RGB"), dtype=np.uint8, order="C")


def _stretch(grey: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Bring a grey image of any depth to 8 bits; a constant image becomes black."""
    values = grey.astype(np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise ImageError("the image holds no finite value")
    low, high = np.percentile(finite, _STRETCH)
    if high <= low:  # nearly all pixels alike: the few others must not vanish
        low, high = finite.min(), finite.max()
    if high <= low:
        return np.zeros(grey.shape, np.uint8)
    scaled = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0.0, 1.0)
    return np.asarray(np.rint(scaled * 255.0).astype(np.uint8))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_BY_SUFFIX: dict[str, Decoder] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"), _decode_with_pillow),
    **dict.fromkeys(
        (".dcm", ".dicom"), _not_yet("DICOM", "convert the frames to 16-bit PNG first")
    ),
    **dict.fromkeys((".nii", ".nii.gz"), _not_yet("NIfTI", "slice the volume to PNG first")),
}

IMAGE_SUFFIXES = frozenset(_BY_SUFFIX)
"""Names that a listing takes for images."""
