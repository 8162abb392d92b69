"""Reference masks of images: for GT-SAM, for evaluation and for tuning.

A reference location is a folder of masks named by their image's stem, or an ``index.csv`` with the
columns ``image`` and ``mask`` (or a folder that holds one, in itself or one level up from
``masks/``). Names in an index are whole paths, or relative to ``images/`` and ``masks/`` next to
it.

The masks of a volume's slices are in a NIfTI volume or TIFF with the volume's stem, sliced in the
same way, or in one file per slice: ``STEM/007.png``, ``STEM-007.png`` or ``STEM_007.png`` for the
slice of index 7.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError, SalipError
from salip_ray.schema import ImageRef
from salip_ray.sources.decode import NIFTI_SUFFIXES
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats.names import suffix
from salip_ray.sources.formats.stack import Spacing
from salip_ray.sources.locations import normalise, public_uri
from salip_ray.sources.mask_files import ClassIds, as_class_ids, read_mask_file
from salip_ray.sources.reference_files import (
    SliceKey,
    find_masks,
    hash_files,
    image_key,
    slice_key,
    whole_key,
)
from salip_ray.sources.stores import describe_error

if TYPE_CHECKING:
    from salip_ray.sources.formats.nifti import Grid

_SAME = 1e-3  # share by which the spacing of a mask may differ from its image's


class References:
    """The reference masks of a location, by image."""

    def __init__(
        self,
        masks: Mapping[str, str],
        storage_options: Mapping[str, Any] | None = None,
        slices: Mapping[SliceKey, str] | None = None,
    ) -> None:
        """Store the URIs of masks by image key, and by stem and index; :meth:`open` makes both."""
        self._masks = dict(masks)
        self._slices = dict(slices or {})
        self._options = dict(storage_options or {})
        self._shared: dict[str | SliceKey, int] = {}
        self._volume: tuple[tuple[object, ...], npt.NDArray[Any], Grid] | None = None

    @classmethod
    def open(cls, location: str, storage_options: Mapping[str, Any] | None = None) -> References:
        """List a folder of masks, or read an index.

        Raises:
            InputError: the location is empty or cannot be read, the index lacks a column, or two
                masks have the same stem.
        """
        where = normalise(location)
        try:
            masks, slices = find_masks(where, storage_options)
        except SalipError:
            raise
        except Exception as error:  # noqa: BLE001  (clients of stores raise many types)
            problem = describe_error(error, where)
            raise InputError(f"reference {public_uri(where)} cannot be read: {problem}") from None
        return cls(masks, storage_options, slices)

    def among(self, uris: Iterable[str]) -> References:
        """Return the masks for the images of one run.

        A stem that several images share has no mask, which could be that of another image;
        :meth:`ambiguity` gives the reason. Whole URIs in an index distinguish such images.
        """
        slice_stems = {key[0] for key in self._slices}
        stems: Counter[str] = Counter()
        keys: Counter[SliceKey] = Counter()
        for uri in set(uris):
            name = image_key(uri)
            if name in self._masks or name in slice_stems:
                stems[name] += 1
            if (key := slice_key(uri)) in self._slices:  # brain/007.png of two patients
                keys[key] += 1
        shared = {name: count for name, count in stems.items() if count > 1}
        masks = {name: mask for name, mask in self._masks.items() if name not in shared}
        slices = {
            key: mask
            for key, mask in self._slices.items()
            if key[0] not in shared and keys[key] <= 1
        }
        chosen = References(masks, self._options, slices)
        chosen._shared.update(shared)
        chosen._shared.update({key: count for key, count in keys.items() if count > 1})
        return chosen

    def ambiguity(self, image: ImageRef) -> str | None:
        """Return why a mask of the image's name is not its mask; None if there is no such mask."""
        if self.named(image) is not None:
            return None
        name = image_key(image.uri)
        count = self._shared.get(name, 0)
        key = slice_key(image.uri)
        if not count and key is not None:
            count = self._shared.get(key, 0)
        if not count:
            return None
        return (
            f"{count} images have the name of one reference mask: list whole paths of images in an "
            "index.csv to tell them apart"
        )

    def uris(self) -> set[str]:
        """Return the URIs of all masks."""
        return set(self._masks.values()) | set(self._slices.values())

    def digest(self) -> str:
        """Return the SHA-256 of the content of all masks, and of the images that they are of."""
        named = [*self._masks.items(), *self._slices.items()]
        content = hash_files(self.uris(), self._options)
        text = json.dumps(sorted([str(name), content[uri]] for name, uri in named))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def __len__(self) -> int:
        return len(self.uris())

    def find(self, image: ImageRef) -> ImageRef | None:
        """Return the reference mask of an image, by its whole URI or else by its stem.

        For a slice, a mask of that slice alone takes precedence over one of the volume.

        Raises:
            ImageError: the mask is a NIfTI volume and the image is not, so their
                orientations cannot be compared.
        """
        mask = self.named(image)
        if mask is None or mask.index != image.index:  # none, or a slice's own
            return mask
        if suffix(mask.uri) in NIFTI_SUFFIXES and suffix(image.uri) not in NIFTI_SUFFIXES:
            shown = public_uri(mask.uri)
            raise ImageError(f"reference mask {shown} is NIfTI, but its image is not")
        return mask

    def named(self, image: ImageRef) -> ImageRef | None:
        """Return the mask of an image like :meth:`find`, without a check of the two formats."""
        name = image_key(image.uri)
        if image.index is not None and (own := self._slices.get((name, image.index))):
            return ImageRef(own)
        if mask := self._masks.get(whole_key(image.uri)) or self._masks.get(name):
            return ImageRef(mask, image.index)
        if name.isdigit() and (key := slice_key(image.uri)) in self._slices:
            # A numbered file, in a folder that has one name on both sides.
            return ImageRef(self._slices[key])
        return None

    def load(
        self,
        mask: ImageRef,
        config: ImageConfig | None = None,
        *,
        count: int | None = None,
        spacing: Spacing | None = None,
    ) -> ClassIds:
        """Read a mask as the stored integers, [H, W].

        Args:
            mask: from :meth:`find`.
            config: how a NIfTI volume is cut: ``axis`` and ``volume_index``.
            count: how many slices the image's volume has; those of its mask must be as many.
            spacing: of the slice's pixels, in mm; that of a NIfTI mask must be the same.

        Raises:
            ImageError: the file is missing, is not a single-channel image of whole numbers, or not
                on the grid of its image.
        """
        if suffix(mask.uri) in NIFTI_SUFFIXES:
            return self._slice(mask, config or ImageConfig(), count, spacing)
        shown = public_uri(mask.uri)
        pages, values = read_mask_file(
            self._fetch(mask.uri, config), mask.index, shown, config or ImageConfig()
        )
        _require_slices(mask, pages, "page", count)
        return as_class_ids(values, shown)

    def slice_distance(self, mask: ImageRef) -> float | None:
        """Return the mm from slice to slice of a mask that was just loaded; None if unknown."""
        if self._volume is None or self._volume[0][0] != mask.uri:
            return None
        return self._volume[2].slice_distance

    def _slice(
        self, mask: ImageRef, config: ImageConfig, count: int | None, spacing: Spacing | None
    ) -> ClassIds:
        wanted = mask.uri, config.axis, config.volume_index
        if self._volume is None or self._volume[0] != wanted:
            from salip_ray.sources.formats import nifti  # nibabel takes a third of a second

            # Its other slices come next.
            data = self._fetch(mask.uri, config)
            try:
                self._volume = wanted, *nifti.read_labels(data, config)
            except ImageError as problem:
                raise ImageError(f"reference mask {public_uri(mask.uri)}: {problem}") from problem
        _, values, grid = self._volume
        _require_slices(mask, grid.count, f"{config.axis} slice", count)
        if spacing is not None and not np.allclose(grid.spacing, spacing, rtol=_SAME):
            raise ImageError(
                f"reference mask {public_uri(mask.uri)} has pixels of {_mm(grid.spacing)}, "
                f"but its image of {_mm(spacing)}: it is not on the image's grid"
            )
        plane = np.ascontiguousarray(grid.plane(values, mask.index or 0))
        return as_class_ids(plane, public_uri(mask.uri))

    def _fetch(self, mask_uri: str, config: ImageConfig | None) -> bytes:
        limit = (config or ImageConfig()).max_bytes
        (data,) = fetch_all([mask_uri], self._options, max_bytes=limit)
        if isinstance(data, Exception):
            raise ImageError(f"reference mask: {data}")
        return data


def _require_slices(mask: ImageRef, slices: int, kind: str, count: int | None) -> None:
    """Raise ImageError if a mask cannot have the slices of its image."""
    wanted = 1 if mask.index is None else count
    has = f"reference mask {public_uri(mask.uri)} has {slices} {kind}{'' if slices == 1 else 's'}"
    if wanted is not None and slices != wanted:
        raise ImageError(f"{has}, its image {wanted}")
    if mask.index is not None and mask.index >= slices:
        raise ImageError(f"{has}, slice {mask.index} is wanted")


def _mm(spacing: Spacing) -> str:
    return f"{spacing[0]:g} x {spacing[1]:g} mm"
