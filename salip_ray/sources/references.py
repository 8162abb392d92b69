"""Reference masks beside the images: for GT-SAM, for evaluation and for tuning.

A reference location is a folder of masks named by their image's stem, or an ``index.csv`` with the
columns ``image`` and ``mask`` (or a folder that holds one, in itself or one level up from
``masks/``). Names in an index are paths of their own, or relative to ``images/`` and ``masks/``
beside it.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError, InputError
from salip_ray.sources.decode import IMAGE_SUFFIXES, stem, suffix
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.formats import nifti
from salip_ray.sources.locations import filesystem, is_remote, join, normalise, public_uri

ClassIds = npt.NDArray[np.int32]  #: shape [H, W]
_INDEX = "index.csv"


class References:
    """Finds and loads the reference mask of an image."""

    def __init__(
        self, masks: Mapping[str, str], storage_options: Mapping[str, Any] | None = None
    ) -> None:
        """Keep a mapping of image key to mask URI; :meth:`open` makes it."""
        self._masks = dict(masks)
        self._options = dict(storage_options or {})
        self._volume: tuple[tuple[object, ...], npt.NDArray[Any], nifti.Grid] | None = None

    @classmethod
    def open(cls, location: str, storage_options: Mapping[str, Any] | None = None) -> References:
        """List a folder of masks, or read an index.

        Raises:
            InputError: nothing is there, the index lacks a column, or two masks have one stem.
        """
        where = normalise(location)
        fs, path = filesystem(where, storage_options)
        if suffix(where) == ".csv":
            return cls(_read_index(fs, path, where), storage_options)
        index = join(where, _INDEX)
        if fs.exists(join(path, _INDEX)):
            return cls(_read_index(fs, join(path, _INDEX), index), storage_options)
        return cls(_list_folder(fs, path, where), storage_options)

    def __len__(self) -> int:
        return len(self._masks)

    def find(self, image_uri: str) -> str | None:
        """The URI of an image's reference mask: by the image's whole URI, else by its stem."""
        return self._masks.get(public_uri(image_uri)) or self._masks.get(stem(image_uri))

    def load(
        self, mask_uri: str, index: int | None = None, config: ImageConfig | None = None
    ) -> ClassIds:
        """Read a mask as integers of shape [H, W], just as they are stored.

        Args:
            mask_uri: from :meth:`find`.
            index: the slice that is meant, where the mask is a NIfTI volume.
            config: how that is cut: ``axis`` and ``volume_index``.

        Raises:
            ImageError: the file is missing, or is not a single-channel image of whole numbers.
        """
        if suffix(mask_uri) in {".nii", ".nii.gz"}:
            return self._slice(mask_uri, index or 0, config or ImageConfig())
        data = self._fetch(mask_uri)
        try:
            with Pil.open(io.BytesIO(data)) as file:
                values = np.asarray(file)
        except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever they meet)
            said = " ".join(str(error).split())
            raise ImageError(f"reference mask {mask_uri} cannot be read: {said}") from None
        if values.ndim == 3 and all(
            np.array_equal(values[..., 0], values[..., channel])
            for channel in range(1, min(values.shape[2], 3))
        ):
            values = values[..., 0]  # grey saved as RGB
        if values.ndim != 2 or not (values.dtype == np.bool_ or values.dtype.kind in "iu"):
            raise ImageError(
                f"reference mask {mask_uri} must hold one whole number a pixel, "
                f"found {values.dtype} of shape {list(values.shape)}"
            )
        return values.astype(np.int32)

    def _slice(self, mask_uri: str, index: int, config: ImageConfig) -> ClassIds:
        wanted = mask_uri, config.axis, config.volume_index
        if self._volume is None or self._volume[0] != wanted:
            # Kept for its other slices, which come next.
            self._volume = wanted, *nifti.read_labels(self._fetch(mask_uri), config)
        _, values, grid = self._volume
        if index >= grid.count:
            raise ImageError(
                f"reference mask {mask_uri} has {grid.count} {config.axis} slices, "
                f"slice {index} is wanted"
            )
        return np.ascontiguousarray(grid.plane(values, index)).astype(np.int32)

    def _fetch(self, mask_uri: str) -> bytes:
        (data,) = fetch_all([mask_uri], self._options)
        if isinstance(data, Exception):
            raise ImageError(f"reference mask: {data}")
        return data


def _list_folder(fs: Any, path: str, where: str) -> dict[str, str]:
    shown = public_uri(where)
    if not fs.isdir(path):
        raise InputError(f"reference {shown} is neither a folder nor an index.csv")
    masks: dict[str, str] = {}
    prefix = f"{where.partition('://')[0]}://" if is_remote(where) else ""
    for name in sorted(fs.find(path)):
        hidden = posixpath.basename(name).startswith(".")
        if hidden or suffix(name) not in IMAGE_SUFFIXES:
            continue
        other = masks.setdefault(stem(name), f"{prefix}{name}")
        if other != f"{prefix}{name}":
            raise InputError(f"reference {shown} has two masks for {stem(name)!r}: {other}, {name}")
    if not masks:
        raise InputError(f"no mask found in reference {shown}")
    return masks


def _read_index(fs: Any, path: str, where: str) -> dict[str, str]:
    shown = public_uri(where)
    text = pa.csv.ConvertOptions(column_types={"image": pa.string(), "mask": pa.string()})
    try:
        with fs.open(path, "rb") as file:
            table = pa.csv.read_csv(file, convert_options=text)
    except FileNotFoundError:
        raise InputError(f"reference {shown} does not exist") from None
    except pa.ArrowException as error:
        raise InputError(f"reference {shown}: {' '.join(str(error).split())}") from None
    if missing := {"image", "mask"} - set(table.column_names):
        raise InputError(
            f"reference {shown} has no column {sorted(missing)[0]!r}; "
            f"its columns are {', '.join(table.column_names)}"
        )
    folder = where.rpartition("/")[0]
    masks: dict[str, str] = {}
    stems: dict[str, set[str]] = {}
    for row in table.select(["image", "mask"]).to_pylist():
        if not row["image"] or not row["mask"]:
            raise InputError(f"reference {shown} has a row without image or mask: {row}")
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
