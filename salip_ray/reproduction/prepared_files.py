"""The files that a job reads in the place of downloaded ones: filled outlines and cut volumes."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.errors import InputError
from salip_ray.output.store import Store
from salip_ray.sources.locations import join
from salip_ray.wording import counted

FOLDER = "data"  #: of all files that are written for the jobs
#: Slices that the published loader drops at each end, after those without reference.
END_SLICES = 20
#: The published search tries every ``n // 5``-th slice of a volume.
_SEARCH_SLICES = 5


@dataclass(frozen=True)
class Pair:
    """An image file and its reference file."""

    image: str
    reference: str


def filled(image: Path, reference: Path, store: Store) -> Pair:
    """Write the filled mask of an outline."""

    def make() -> bytes:
        outline = cv2.imread(str(reference), cv2.IMREAD_GRAYSCALE)
        if outline is None:
            raise InputError(f"{reference} is not an image: download it again")
        try:
            mask = fill_outline(np.asarray(outline, np.uint8))
        except InputError as error:
            raise InputError(f"{reference}: {error}") from None
        return cv2.imencode(".png", mask)[1].tobytes()

    (uri,) = _written(store, {f"{FOLDER}/masks/{image.stem}.png": make})
    return Pair(str(image), uri)


def fill_outline(outline: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the filled region of an annotated outline: 0 or 255, [H, W].

    The border of the image closes an outline that it cuts.

    Raises:
        InputError: the outline encloses nothing.
    """
    line = outline > 0
    rows, columns = np.nonzero(line)
    _, regions = cv2.connectedComponents((~line).astype(np.uint8), connectivity=4)
    # The line itself, and the region at its centre.
    centre = regions[round(rows.mean()), round(columns.mean())] if len(rows) else 0
    inside = regions == centre
    if not centre or np.array_equal(inside, ~line):
        raise InputError("the annotation encloses no pixel: it must be a closed outline")
    holes, _ = cv2.findContours(line.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.where(line | inside, 255, 0).astype(np.uint8)
    cv2.drawContours(filled, holes, -1, 255, cv2.FILLED)
    return filled


def search_slices(count: int) -> range:
    """Return the slices of a volume of ``count`` slices that the published search tries."""
    step = max(1, count // _SEARCH_SLICES)
    return range(step, count, step)


def whole_volume(image: Path, reference: Path, store: Store) -> Pair:
    """Write all slices that the published loader keeps."""
    return _sliced(image, reference, store, "volumes", range)


def few_slices(image: Path, reference: Path, store: Store) -> Pair:
    """Write the slices that the published search tries."""
    return _sliced(image, reference, store, "tuning-volumes", search_slices)


def _sliced(
    image: Path, reference: Path, store: Store, folder: str, pick: Callable[[int], range]
) -> Pair:
    """Write some slices of a volume and of its reference.

    The affine is chosen so that a sagittal slice is a slice along the first axis of the file,
    turned by a quarter, as the published loader has it.
    """
    name = image.name.removesuffix(".nii.gz")
    loaded: list[npt.NDArray[Any]] = []

    def volumes() -> list[npt.NDArray[Any]]:
        if not loaded:
            loaded.extend(_load_slices(image, reference, pick))
        return loaded

    uris = _written(
        store,
        {
            f"{FOLDER}/{folder}/{name}.nii.gz": lambda: _nifti(volumes()[0], image),
            f"{FOLDER}/{folder}-masks/{name}.nii.gz": lambda: _nifti(volumes()[1], image),
        },
    )
    return Pair(*uris)


def _load_slices(
    image: Path, reference: Path, pick: Callable[[int], range]
) -> list[npt.NDArray[Any]]:
    """Return the chosen slices of a volume and of its reference.

    Slices without reference are dropped, then :data:`END_SLICES` at each end.
    """
    import nibabel

    volume, mask = (nibabel.Nifti1Image.from_filename(str(path)) for path in (image, reference))
    if volume.shape != mask.shape or len(volume.shape) != 3:
        raise InputError(
            f"{image} has {volume.shape} voxels, {reference} {mask.shape}: they must be volumes of "
            "one shape"
        )
    brain = np.asanyarray(mask.dataobj) > 0
    with_brain = np.flatnonzero(brain.any(axis=(1, 2)))
    used = with_brain[END_SLICES:-END_SLICES]
    if not len(used):
        raise InputError(
            f"{reference} has {counted(len(with_brain), 'slice')} with brain: more than "
            f"{2 * END_SLICES} are needed, as {END_SLICES} are dropped at each end"
        )
    used = used[list(pick(len(used)))]
    return [
        np.asanyarray(volume.dataobj)[used].astype(np.float32),
        brain[used].astype(np.uint8),
    ]


def _nifti(values: npt.NDArray[Any], like: Path) -> bytes:
    """Return a gzipped NIfTI file whose sagittal slices are ``np.rot90(values[i])``."""
    import nibabel

    across, down, up = nibabel.Nifti1Image.from_filename(str(like)).header.get_zooms()[:3]
    volume = nibabel.Nifti1Image(values, np.diag([across, -down, up, 1.0]))
    return gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)


def _written(store: Store, files: Mapping[str, Callable[[], bytes]]) -> list[str]:
    """Write the files that do not exist yet; return the URIs of all."""
    for name, make in files.items():
        if not store.exists(name):
            store.write(name, make())
    return [join(store.location, name) for name in files]
