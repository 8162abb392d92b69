"""The images that labels were made of, loaded by URI or from where they have moved to."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.schema import Image, ImageRef
from salip_ray.sources.decode import only_picture, open_stack, picture_at
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats.names import split_member
from salip_ray.sources.formats.stack import Stack, Values
from salip_ray.sources.locations import join, normalise
from salip_ray.sources.privacy import is_pseudonym, scrub


@dataclass(frozen=True)
class Images:
    """Loads images: files, and slices, frames and pages of files.

    The file that was opened last stays open, so slices of a volume are best requested together.

    Attributes:
        base: the folder that held all images, or their archives, when they were labelled.
        root: the folder that replaces ``base`` now, or None if the images have not moved.
        limits: limits of decoding.
        storage_options: fsspec options of the images' store.
    """

    base: str
    root: str | None
    limits: ImageConfig
    storage_options: Mapping[str, Any] = field(repr=False)
    _opened: dict[str, Stack] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def location(self, uri: str) -> str:
        """Return where an image, or a member of an archive, is now."""
        if self.root is None:
            return uri
        member, archive = split_member(uri)
        moved = join(normalise(self.root), (archive or uri)[len(self.base) :].lstrip("/"))
        return f"{member}::{moved}" if archive else moved

    def load(self, picture: ImageRef, name: str | None = None) -> Image:
        """Return the pixels of an image, uint8 RGB [H, W, 3].

        Args:
            picture: the file, and the index in it.
            name: the ``uri`` of the row, for messages: if it is a pseudonym, the file stays hidden.

        Raises:
            InputError: the image is missing or cannot be read.
        """
        try:
            stack = self._open(picture.uri)
            if picture.index is None:
                return only_picture(stack)
            return picture_at(stack, picture.index)
        except ImageError as error:
            raise ImageError(self._hide(f"image {picture.uri}: {error}", picture, name)) from None
        except InputError as error:
            raise InputError(self._hide(str(error), picture, name)) from None

    def intensities(self, picture: ImageRef) -> Values | None:
        """Return the grey values behind an image, of more than 8 bits, or None if it has no such.

        Args:
            picture: an image that :meth:`load` has loaded.
        """
        stack = self._open(picture.uri)
        return None if stack.intensities is None else stack.intensities(picture.index or 0)

    def _open(self, uri: str) -> Stack:
        if uri not in self._opened:
            data = self._fetch(uri)
            self._opened.clear()  # releases one volume before the next one is unpacked
            self._opened[uri] = open_stack(data, uri, self.limits)
        return self._opened[uri]

    def shown(self, uri: str, name: str) -> str:
        """Return the location of an image for messages: ``name`` if that is a pseudonym."""
        return name if is_pseudonym(name) else self.location(uri)

    def _fetch(self, uri: str) -> bytes:
        (data,) = fetch_all([self.location(uri)], self.storage_options)
        if isinstance(data, Exception):
            moved = "" if self.root else " (if the images have moved, give images_root)"
            raise InputError(f"image {data}{moved}")
        return data

    def _hide(self, message: str, picture: ImageRef, name: str | None) -> str:
        if name is None or not is_pseudonym(name):
            return message
        return scrub(message, (self.location(picture.uri), picture.uri), name)


def folder_of(uri: str) -> str:
    """Return the folder of an image file, or of the archive that holds it."""
    location, archive = split_member(uri)
    return posixpath.dirname((archive or location).partition("#")[0])


def common_folder(folders: Iterable[str]) -> str:
    """Return the deepest folder that holds all of these; empty if there is none."""
    common: list[str] | None = None
    for folder in folders:
        parts = folder.split("/")
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
