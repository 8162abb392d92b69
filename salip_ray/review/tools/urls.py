"""URLs by which a labelling tool in a browser opens images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from salip_ray.errors import InputError
from salip_ray.sources.locations import filesystem, is_remote

_LOCAL_FILES = "/data/local-files/?d="  # how Label Studio serves files below its document root


@dataclass(frozen=True)
class Urls:
    """Makes the URLs of images for Label Studio, whose document root is ``/`` for local files.

    Attributes:
        image_options: fsspec options of the images' store.
        export: location of the export, which holds written images.
        export_options: fsspec options of the export.
        sign_hours: hours for which URLs are signed; 0 for unsigned URLs.
    """

    image_options: Mapping[str, Any] = field(repr=False)
    export: str
    export_options: Mapping[str, Any] | None = field(repr=False)
    sign_hours: float

    def of(self, path: str) -> str:
        """Return the URL of an image.

        Args:
            path: its location.

        Raises:
            InputError: its store signs no URLs.
        """
        if not is_remote(path):
            return _LOCAL_FILES + quote(path.lstrip("/"))
        if not self.sign_hours or path.startswith(("http://", "https://")):
            return path
        in_export = path.startswith(f"{self.export}/")
        options = self.export_options if in_export else self.image_options
        fs, name = filesystem(path, dict(options or {}))
        try:
            return str(fs.sign(name, expiration=round(3600 * self.sign_hours)))
        except NotImplementedError:
            scheme = path.partition("://")[0]
            raise InputError(
                f"URLs of {scheme}:// cannot be signed: leave out --sign-hours, or give --copy"
            ) from None
