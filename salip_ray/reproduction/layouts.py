"""The three datasets of the paper as they are downloaded, as inputs of a job with references.

Each dataset is found by its file names, as the published loaders find it:

    lungs       ``CXR_png/NAME.png`` and ``masks/NAME_mask.png`` (chest X-rays)
    fetal-head  ``NAME_HC.png`` and ``NAME_HC_Annotation.png`` (HC18, outlines that are filled)
    brain       ``NAME.nii.gz`` and ``NAME_ss.nii.gz`` (CC359, slices along the first axis)

Source: ``data/cxr.py``, ``data/hc18.py`` and ``data/cc359.py`` of aleemsidra/SaLIP.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
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

#: Slices that the published loader drops at each end, after those without reference.
END_SLICES = 20
#: The published search tries every ``n // 5``-th slice of a volume.
_SEARCH_SLICES = 5
_DATA = "data"


@dataclass(frozen=True)
class Pair:
    """An image file and its reference file."""

    image: str
    reference: str


@dataclass(frozen=True)
class Listing:
    """Images with references, as a job takes them.

    Attributes:
        images: CSV file with a column ``uri``.
        references: CSV file with the columns ``image`` and ``mask``.
        uris: of the images.
    """

    images: str
    references: str
    uris: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A dataset that a job can label and score.

    Attributes:
        everything: all images with a reference; a volume is one image.
        tuning: those that the search uses; of volumes, only the slices that it uses.
        scored: ``everything`` without the files of ``tuning``.
        unpaired: number of image files without a reference, which are left out.
    """

    everything: Listing
    tuning: Listing
    scored: Listing
    unpaired: int


@dataclass(frozen=True)
class Layout:
    """How the files of a dataset belong together, and what a job reads of them.

    Attributes:
        find: yields each image below a folder, with the path its reference must have.
        prepare: returns the pair that a job reads; files that have to be written go into the store.
        prepare_tuning: the same for the search; None if it reads the same files.
        expects: the file names, for messages.
        tuning_files: number of files of the published search.
    """

    find: Callable[[Path], Iterator[tuple[Path, Path]]]
    prepare: Callable[[Path, Path, Store], Pair]
    expects: str
    tuning_files: int = 5
    prepare_tuning: Callable[[Path, Path, Store], Pair] | None = None


def prepare(
    dataset: str, data: Path, store: Store, *, seed: int, limit: int | None = None
) -> Prepared:
    """Write the lists of images and references of a dataset, and the files that jobs need.

    Files that exist already are not written again, so that a resumed run is fast.

    Args:
        dataset: a key of :data:`LAYOUTS`.
        data: folder of the downloaded dataset.
        store: where lists and files go, under ``data/``.
        seed: of the choice of the images of the search.
        limit: use only the first files in the order of their names.

    Raises:
        InputError: the folder does not exist, or holds too few images with a reference.
    """
    layout = LAYOUTS[dataset]
    if not data.is_dir():
        raise InputError(f"{data} is not a folder: give the folder of the downloaded {dataset}")
    pairs = sorted(pair for pair in layout.find(data.resolve()) if pair[0].name[0] != ".")
    complete = [pair for pair in pairs if pair[1].is_file()][:limit]
    if not complete:
        raise InputError(
            f"{data} holds no image of {dataset} with a reference: expected {layout.expects}"
        )
    if len(complete) <= layout.tuning_files:
        raise InputError(
            f"{data} holds {counted(len(complete), 'image')} of {dataset} with a reference: the "
            f"search alone uses {layout.tuning_files}, so at least {layout.tuning_files + 1} are "
            "needed"
        )
    chosen = set(random.Random(seed).sample(range(len(complete)), layout.tuning_files))  # noqa: S311
    ready = [layout.prepare(*pair, store) for pair in complete]
    for_tuning = layout.prepare_tuning or layout.prepare
    tuning = [for_tuning(*complete[number], store) for number in sorted(chosen)]
    scored = [pair for number, pair in enumerate(ready) if number not in chosen]
    return Prepared(
        _list(store, "everything", ready),
        _list(store, "tuning", tuning),
        _list(store, "scored", scored),
        sum(not reference.is_file() for _, reference in pairs),
    )


def find_lungs(data: Path) -> Iterator[tuple[Path, Path]]:
    """Yield chest X-rays with the path of their masks, as ``data/cxr.py`` pairs them."""
    for image in data.rglob("CXR_png/*.png"):
        yield image, image.parents[1] / "masks" / f"{image.stem}_mask.png"


def find_fetal_heads(data: Path) -> Iterator[tuple[Path, Path]]:
    """Yield HC18 images with the path of their annotated outlines."""
    for image in data.rglob("*_HC.png"):
        yield image, image.with_name(f"{image.stem}_Annotation.png")


def find_brains(data: Path) -> Iterator[tuple[Path, Path]]:
    """Yield CC359 volumes with the path of their silver-standard masks.

    The masks may be in another folder of the dataset. A volume without one gets a path that does
    not exist.
    """
    masks = {path.name.removesuffix("_ss.nii.gz"): path for path in data.rglob("*_ss.nii.gz")}
    for image in data.rglob("*.nii.gz"):
        name = image.name.removesuffix(".nii.gz")
        if not name.endswith(("_ss", "_staple")):
            yield image, masks.get(name, image.with_name(f"{name}_ss.nii.gz"))


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


def _unchanged(image: Path, reference: Path, _: Store) -> Pair:
    return Pair(str(image), str(reference))


def _filled(image: Path, reference: Path, store: Store) -> Pair:
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

    (uri,) = _written(store, {f"{_DATA}/masks/{image.stem}.png": make})
    return Pair(str(image), uri)


def search_slices(count: int) -> range:
    """Return the slices of a volume of ``count`` slices that the published search tries."""
    step = max(1, count // _SEARCH_SLICES)
    return range(step, count, step)


def _whole(image: Path, reference: Path, store: Store) -> Pair:
    """Write all slices that the published loader keeps."""
    return _sliced(image, reference, store, "volumes", range)


def _few(image: Path, reference: Path, store: Store) -> Pair:
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
            f"{_DATA}/{folder}/{name}.nii.gz": lambda: _nifti(volumes()[0], image),
            f"{_DATA}/{folder}-masks/{name}.nii.gz": lambda: _nifti(volumes()[1], image),
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


def _list(store: Store, name: str, pairs: Sequence[Pair]) -> Listing:
    images, references = f"{_DATA}/{name}.csv", f"{_DATA}/{name}-references.csv"
    store.write(images, _csv(["uri"], [[pair.image] for pair in pairs]))
    rows = [[pair.image, pair.reference] for pair in pairs]
    store.write(references, _csv(["image", "mask"], rows))
    uris = tuple(pair.image for pair in pairs)
    return Listing(join(store.location, images), join(store.location, references), uris)


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


LAYOUTS: Mapping[str, Layout] = {
    "lungs": Layout(find_lungs, _unchanged, "CXR_png/NAME.png and masks/NAME_mask.png"),
    "fetal-head": Layout(find_fetal_heads, _filled, "NAME_HC.png and NAME_HC_Annotation.png"),
    "brain": Layout(
        find_brains, _whole, "NAME.nii.gz and NAME_ss.nii.gz", tuning_files=2, prepare_tuning=_few
    ),
}
