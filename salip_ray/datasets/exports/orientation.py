"""Find image files that other programs may show in another way than the labelled picture.

Some readers apply an EXIF orientation, others ignore it; labels belong to the upright picture. Some
show more than 8 bits as a dark picture.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from PIL import ExifTags
from PIL import Image as Pil

from salip_ray.sources.formats.pillow_images import own_pixel_limit
from salip_ray.sources.opening import parsed

_HEAD = 1 << 16  # bytes, which nearly always hold everything before the pixels
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_8_BITS = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})  # modes of Pillow
_THREADS = 16
_BATCH = 1024


def any_turned(uris: Sequence[str], storage_options: Mapping[str, Any] | None = None) -> bool:
    """Return True if any of these files has an orientation; only their heads are read.

    A missing or damaged file counts as not turned.

    Raises:
        InputError: the store fails to serve a file.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return any(
            turned is True
            for start in range(0, len(uris), _BATCH)
            for turned in pool.map(
                lambda uri: parsed(uri, _is_turned, storage_options), uris[start : start + _BATCH]
            )
        )


def has_8_bits(file: Path) -> bool:
    """Return True if a local file is an image of at most 8 bits per channel."""
    try:
        with own_pixel_limit(), Pil.open(file, formats=_FORMATS) as image:
            return image.mode in _8_BITS
    except (OSError, SyntaxError, ValueError):
        return False


def _is_turned(file: IO[bytes]) -> bool:
    head = io.BytesIO(file.read(_HEAD))
    try:
        return _has_orientation(head)
    except Exception:  # noqa: BLE001  (Pillow's plugins raise many types if a file is cut)
        file.seek(0)
        return _has_orientation(file)


def _has_orientation(file: IO[bytes]) -> bool:
    with own_pixel_limit(), Pil.open(file, formats=_FORMATS) as image:
        if image.format == "PNG" and "exif" not in image.info:  # else Pillow unpacks all pixels
            return False
        return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
