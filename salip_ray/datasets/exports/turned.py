"""Whether image files are stored turned, with an EXIF orientation that some readers heed.

Labels are of the picture as it is meant to be seen; who opens such a file as it is may see another.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from PIL import ExifTags
from PIL import Image as Pil

from salip_ray.sources.formats.ordinary import own_pixel_limit
from salip_ray.sources.opening import parsed

_HEAD = 1 << 16  # bytes, which mostly hold all that comes before the pixels
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_THREADS = 16
_TOGETHER = 1024


def any_turned(addresses: Sequence[str], storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether any of these files is stored turned; one that is missing or damaged is not.

    Only heads are read.

    Raises:
        InputError: the store fails to give one out.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return any(
            found is True
            for start in range(0, len(addresses), _TOGETHER)
            for found in pool.map(
                lambda address: parsed(address, _is_turned, storage_options),
                addresses[start : start + _TOGETHER],
            )
        )


def _is_turned(file: IO[bytes]) -> bool:
    head = io.BytesIO(file.read(_HEAD))
    try:
        return _has_orientation(head)
    except Exception:  # noqa: BLE001  (Pillow's plugins raise whatever they meet where it is cut)
        file.seek(0)
        return _has_orientation(file)


def _has_orientation(file: IO[bytes]) -> bool:
    with own_pixel_limit(), Pil.open(file, formats=_FORMATS) as image:
        if image.format == "PNG" and "exif" not in image.info:  # Pillow would unpack all of it
            return False
        return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
