"""The pictures that labels were made of, found again by their URI or where they have moved to."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from salip_ray.config import ImageConfig
from salip_ray.errors import InputError
from salip_ray.schema import Image, ImageRef
from salip_ray.sources.decode import only_picture, open_stack, picture_at
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats.stack import Stack
from salip_ray.sources.locations import join, normalise


@dataclass(frozen=True)
class Images:
    """Loads pictures: image files, and slices, frames and pages of others.

    The volume that was opened last is kept for its next slices, which are best asked for together.

    Attributes:
        base: the folder that all of them lay below when they were labelled.
        root: the folder that stands for ``base`` now, or None where they have not moved.
        limits: of decoding.
        storage_options: fsspec options of the images' store.
    """

    base: str
    root: str | None
    limits: ImageConfig
    storage_options: Mapping[str, Any] = field(repr=False)
    _opened: dict[str, Stack] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    @classmethod
    def of(
        cls,
        uris: Iterable[str],
        root: str | None,
        limits: ImageConfig,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Images:
        """Images whose common folder is that of ``uris``."""
        where = None if root is None else normalise(root)
        return cls(common_folder(uris), where, limits, dict(storage_options or {}))

    def place(self, uri: str) -> str:
        """Where an image is now."""
        if self.root is None:
            return uri
        return join(self.root, uri[len(self.base) :].lstrip("/"))

    def fetch(self, uri: str) -> bytes:
        """The bytes of an image file.

        Raises:
            InputError: it is not there, or cannot be read.
        """
        (data,) = fetch_all([self.place(uri)], self.storage_options)
        if isinstance(data, Exception):
            moved = "" if self.root else " (give images_root where the images have moved)"
            raise InputError(f"image {data}{moved}")
        return data

    def load(self, picture: ImageRef) -> Image:
        """The pixels of a picture, uint8 RGB [H, W, 3].

        Raises:
            InputError: it is not there, or cannot be read.
        """
        if picture.index is None:
            return only_picture(open_stack(self.fetch(picture.uri), picture.uri, self.limits))
        if picture.uri not in self._opened:
            data = self.fetch(picture.uri)
            self._opened.clear()  # the volume before is let go before the next is unpacked
            self._opened[picture.uri] = open_stack(data, picture.uri, self.limits)
        return picture_at(self._opened[picture.uri], picture.index)


def common_folder(uris: Iterable[str]) -> str:
    """The deepest folder that all URIs lie below; empty where there is none."""
    common: list[str] | None = None
    for uri in uris:
        parts = posixpath.dirname(uri.partition("#")[0]).split("/")
        if common is None:
            common = parts
            continue
        same = 0
        for one, other in zip(common, parts, strict=False):
            if one != other:
                break
            same += 1
        common = common[:same]
    return "/".join(common or [])
