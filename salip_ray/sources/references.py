"""Reference masks beside the images: for GT-SAM, for evaluation and for tuning.

A reference location is a folder of masks named by their image's stem, or an ``index.csv`` with the
columns ``image`` and ``mask`` (or a folder that holds one, in itself or one level up from
``masks/``). Names in an index are paths of their own, or relative to ``images/`` and ``masks/``
beside it.

The slices of a volume have theirs in a NIfTI volume or TIFF of the volume's stem, cut alike, or in
a file each: ``STEM/007.png``, ``STEM-007.png`` or ``STEM_007.png`` for the slice of index 7.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError, SalipError
from salip_ray.schema import ImageRef
from salip_ray.sources.decode import IMAGE_SUFFIXES, stem, suffix
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats import nifti
from salip_ray.sources.formats.stack import Spacing
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri
from salip_ray.sources.stores import describe_error

ClassIds = npt.NDArray[np.int32]  #: shape [H, W]
SliceKey = tuple[str, int]  #: stem of the volume's file, index of the slice
_INDEX = "index.csv"
_NIFTI = frozenset({".nii", ".nii.gz"})
_OF_SLICE = re.compile(r"(?:(?P<stem>.+)[-_])?(?P<index>\d+)")
_SAME = 1e-3  # share by which the spacing of a mask may differ from its image's


class References:
    """Finds and loads the reference mask of an image."""

    def __init__(
        self,
        masks: Mapping[str, str],
        storage_options: Mapping[str, Any] | None = None,
        slices: Mapping[SliceKey, str] | None = None,
    ) -> None:
        """Keep the URIs of masks by image key, and by stem and index; :meth:`open` makes both."""
        self._masks = dict(masks)
        self._slices = dict(slices or {})
        self._options = dict(storage_options or {})
        self._volume: tuple[tuple[object, ...], npt.NDArray[Any], nifti.Grid] | None = None

    @classmethod
    def open(cls, location: str, storage_options: Mapping[str, Any] | None = None) -> References:
        """List a folder of masks, or read an index.

        Raises:
            InputError: nothing is there, or cannot be read; the index lacks a column, or two masks
                have one stem.
        """
        where = normalise(location)
        try:
            masks, slices = _find_all(where, storage_options)
        except SalipError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
            problem = describe_error(error, where)
            raise InputError(f"reference {public_uri(where)} cannot be read: {problem}") from None
        return cls(masks, storage_options, slices)

    def among(self, uris: Iterable[str]) -> References:
        """Those for the images of one run: a stem that several of them have finds no mask.

        ``view1`` may be a mask of any ``view1.png``; whole URIs, in an index, tell them apart.
        """
        images = {public_uri(uri) for uri in uris}
        stems = Counter(map(stem, images))
        keys = Counter(map(_slice_key, images))  # brain/007.png, of this patient and of that
        masks = {name: mask for name, mask in self._masks.items() if stems[name] <= 1}
        slices = {
            key: mask for key, mask in self._slices.items() if stems[key[0]] <= 1 and keys[key] <= 1
        }
        return References(masks, self._options, slices)

    def __len__(self) -> int:
        return len(set(self._masks.values()) | set(self._slices.values()))

    def find(self, image: ImageRef) -> ImageRef | None:
        """Where the reference mask of an image is: by its whole URI, else by its stem.

        A slice is looked for among masks of one slice first.

        Raises:
            ImageError: the mask is a NIfTI volume and the image is not, so nothing says which way
                one lies on the other.
        """
        mask = self.named(image)
        if mask is None or mask.index != image.index:  # none, or a slice's own
            return mask
        if suffix(mask.uri) in _NIFTI and suffix(image.uri) not in _NIFTI:
            shown = public_uri(mask.uri)
            raise ImageError(f"reference mask {shown} is NIfTI, but its image is not")
        return mask

    def named(self, image: ImageRef) -> ImageRef | None:
        """As :meth:`find`, whatever the two are: for what may be said of an image's mask."""
        name = stem(image.uri)
        if image.index is not None and (own := self._slices.get((name, image.index))):
            return ImageRef(own)
        if found := self._masks.get(public_uri(image.uri)) or self._masks.get(name):
            return ImageRef(found, image.index)
        if name.isdigit() and (key := _slice_key(image.uri)) in self._slices:
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
        """Read a mask as integers of shape [H, W], just as they are stored.

        Args:
            mask: from :meth:`find`.
            config: how a NIfTI volume is cut: ``axis`` and ``volume_index``.
            count: how many slices the image's volume has; those of its mask must be as many.
            spacing: of the slice's pixels, in mm; that of a NIfTI mask must be the same.

        Raises:
            ImageError: the file is missing, is not a single-channel image of whole numbers, or not
                on the grid of its image.
        """
        if suffix(mask.uri) in _NIFTI:
            return self._slice(mask, config or ImageConfig(), count, spacing)
        data = self._fetch(mask.uri)
        try:
            with Pil.open(io.BytesIO(data)) as file:
                pages = getattr(file, "n_frames", 1)
                _require_slices(mask, pages, "pages", count)
                if mask.index is not None:
                    file.seek(mask.index)
                values = np.asarray(file)
        except ImageError:
            raise
        except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
            shown = public_uri(mask.uri)
            raise ImageError(
                f"reference mask {shown} cannot be read: {describe_error(error)}"
            ) from None
        if values.ndim == 3 and all(
            np.array_equal(values[..., 0], values[..., channel])
            for channel in range(1, min(values.shape[2], 3))
        ):
            values = values[..., 0]  # grey saved as RGB
        if values.ndim != 2 or not (values.dtype == np.bool_ or values.dtype.kind in "iu"):
            raise ImageError(
                f"reference mask {public_uri(mask.uri)} must hold one whole number a pixel, "
                f"found {values.dtype} of shape {list(values.shape)}"
            )
        return values.astype(np.int32)

    def _slice(
        self, mask: ImageRef, config: ImageConfig, count: int | None, spacing: Spacing | None
    ) -> ClassIds:
        wanted = mask.uri, config.axis, config.volume_index
        if self._volume is None or self._volume[0] != wanted:
            # Kept for its other slices, which come next.
            self._volume = wanted, *nifti.read_labels(self._fetch(mask.uri), config)
        _, values, grid = self._volume
        _require_slices(mask, grid.count, f"{config.axis} slices", count)
        if spacing is not None and not np.allclose(grid.spacing, spacing, rtol=_SAME):
            raise ImageError(
                f"reference mask {public_uri(mask.uri)} has pixels of {_mm(grid.spacing)}, "
                f"but its image of {_mm(spacing)}: it is not on the image's grid"
            )
        return np.ascontiguousarray(grid.plane(values, mask.index or 0)).astype(np.int32)

    def _fetch(self, mask_uri: str) -> bytes:
        (data,) = fetch_all([mask_uri], self._options)
        if isinstance(data, Exception):
            raise ImageError(f"reference mask: {data}")
        return data


def _require_slices(mask: ImageRef, found: int, kind: str, count: int | None) -> None:
    """Raise ImageError where a mask's slices cannot be those of its image."""
    wanted = 1 if mask.index is None else count
    has = f"reference mask {public_uri(mask.uri)} has {found} {kind}"
    if wanted is not None and found != wanted:
        raise ImageError(f"{has}, its image {wanted}")
    if mask.index is not None and mask.index >= found:
        raise ImageError(f"{has}, slice {mask.index} is wanted")


def _mm(spacing: Spacing) -> str:
    return f"{spacing[0]:g} x {spacing[1]:g} mm"


def _find_all(
    where: str, storage_options: Mapping[str, Any] | None
) -> tuple[dict[str, str], dict[SliceKey, str]]:
    """The masks of an index or a folder by image key, and those of single slices."""
    fs, path = filesystem(where, storage_options)
    if suffix(where) == ".csv":
        return _read_index(fs, path, where), {}
    if fs.exists(join(path, _INDEX)):
        return _read_index(fs, join(path, _INDEX), join(where, _INDEX)), {}
    return _list_folder(fs, path, where)


def _list_folder(fs: Any, path: str, where: str) -> tuple[dict[str, str], dict[SliceKey, str]]:
    """The masks of a folder by stem, and those of single slices by stem and index."""
    shown = public_uri(where)
    if not fs.isdir(path):
        raise InputError(f"reference {shown} is neither a folder nor an index.csv")
    masks: dict[str, str] = {}
    slices: dict[SliceKey, str] = {}
    numbered: set[str] = set()  # 007.png of one volume is not that of another
    prefix = f"{where.partition('://')[0]}://" if is_remote(where) else ""
    for name in sorted(fs.find(path)):
        hidden = posixpath.basename(name).startswith(".")
        if hidden or suffix(name) not in IMAGE_SUFFIXES:
            continue
        uri = f"{prefix}{name}"
        if key := _slice_key(name[len(path) :]):
            slices[key] = uri
        other = masks.setdefault(stem(name), uri)
        if other != uri and key and stem(name).isdigit():
            numbered.add(stem(name))
        elif other != uri:
            raise InputError(
                f"reference {shown} has two masks for {stem(name)!r}: "
                f"{public_uri(other)}, {public_uri(uri)}"
            )
    if not masks:
        raise InputError(f"no mask found in reference {shown}")
    return {name: uri for name, uri in masks.items() if name not in numbered}, slices


def _slice_key(name: str) -> SliceKey | None:
    """The slice that a file may be the mask of, by its name and folder."""
    match = _OF_SLICE.fullmatch(stem(name))
    volume = match and (match["stem"] or posixpath.basename(posixpath.dirname(name)))
    return (volume, int(match["index"])) if match and volume else None


def _read_index(fs: Any, path: str, where: str) -> dict[str, str]:
    shown = public_uri(where)
    text = pa.csv.ConvertOptions(column_types={"image": pa.string(), "mask": pa.string()})
    try:
        with fs.open(path, "rb") as file:
            table = pa.csv.read_csv(file, convert_options=text)
    except FileNotFoundError:
        raise InputError(f"reference {shown} does not exist") from None
    except pa.ArrowException as error:
        raise InputError(f"reference {shown}: {describe_error(error)}") from None
    if missing := {"image", "mask"} - set(table.column_names):
        raise InputError(
            f"reference {shown} has no column {sorted(missing)[0]!r}; "
            f"its columns are {', '.join(table.column_names)}"
        )
    folder = where.rpartition("/")[0]
    masks: dict[str, str] = {}
    stems: dict[str, set[str]] = {}
    for number, row in enumerate(table.select(["image", "mask"]).to_pylist(), start=1):
        if not row["image"] or not row["mask"]:
            raise InputError(f"reference {shown} has a row without image or mask: row {number}")
        mask = _resolve(row["mask"], folder, "masks")
        image = _resolve(row["image"], folder, "images")
        masks[public_uri(image)] = mask
        stems.setdefault(stem(image), set()).add(mask)
    # Where the images were moved the stem finds the mask, as long as it means one mask only.
    unique = {name: found.pop() for name, found in stems.items() if len(found) == 1}
    return {**unique, **masks}


def _resolve(name: str, folder: str, beside: str) -> str:
    if is_remote(name) or name.startswith(("/", "~")):
        return normalise(name)
    if name.startswith(f"{beside}/") or "/" in name:
        return normalise(join(folder, name))
    return normalise(join(folder, beside, name))
