"""The three datasets of the paper as they are downloaded, as inputs of a job with references.

Each dataset is found by its file names, as the published loaders find it:

    lungs       ``CXR_png/NAME.png`` and ``masks/NAME_mask.png`` (Shenzhen chest X-rays)
    fetal-head  ``NAME_HC.png`` and ``NAME_HC_Annotation.png`` (HC18, outlines that are filled)
    brain       ``NAME.nii.gz`` and ``NAME_ss.nii.gz`` (CC359, slices along the first axis)

Source: ``data/cxr.py``, ``data/hc18.py`` and ``data/cc359.py`` of aleemsidra/SaLIP.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

from salip_ray.errors import InputError
from salip_ray.wording import counted

#: Slices that the published loader drops at each end, after those without reference.
END_SLICES = 20
_STAPLE = "_staple"


@dataclass(frozen=True)
class Pair:
    """An image file and its reference file, as downloaded."""

    image: Path
    reference: Path


@dataclass(frozen=True)
class Prepared:
    """A dataset that a job can label and score.

    Attributes:
        images: CSV file with a column ``uri``, as ``salip-ray label`` takes it.
        references: ``index.csv`` with the columns ``image`` and ``mask``.
        n_files: image files; a volume counts once.
        unpaired: image files without a reference, which are left out.
    """

    images: Path
    references: Path
    n_files: int
    unpaired: int


@dataclass(frozen=True)
class Layout:
    """How the files of a dataset belong together.

    Attributes:
        find: yields each image below a folder, with the path its reference must have.
        prepare: returns the image and the mask file of a pair that a job reads; files that have to
            be written go into the given folder.
        expects: the file names, for messages.
    """

    find: Callable[[Path], Iterator[Pair]]
    prepare: Callable[[Pair, Path], Pair]
    expects: str


def prepare(dataset: str, data: Path, folder: Path) -> Prepared:
    """Write the list of images and the index of references of a dataset.

    Existing files with the same content stay as they are, so that a resumed run sees the same
    input.

    Args:
        dataset: ``lungs``, ``fetal-head`` or ``brain``.
        data: folder of the downloaded dataset.
        folder: where the lists go, and masks that are not used as downloaded.

    Raises:
        InputError: the folder does not exist, or holds no image with a reference.
    """
    layout = LAYOUTS[dataset]
    if not data.is_dir():
        raise InputError(f"{data} is not a folder: give the folder of the downloaded {dataset}")
    pairs = sorted(layout.find(data.resolve()), key=lambda pair: pair.image)
    complete = [pair for pair in pairs if pair.reference.is_file()]
    if not complete:
        raise InputError(
            f"{data} holds no image of {dataset} with a reference: expected {layout.expects}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    ready = [layout.prepare(pair, folder) for pair in complete]
    images, references = folder / "images.csv", folder / "index.csv"
    _write_csv(images, ("uri",), [(str(pair.image),) for pair in ready])
    rows = [(str(pair.image), str(pair.reference)) for pair in ready]
    _write_csv(references, ("image", "mask"), rows)
    return Prepared(images, references, len(ready), len(pairs) - len(complete))


def find_lungs(data: Path) -> Iterator[Pair]:
    """Yield chest X-rays with the path of their masks, as ``data/cxr.py`` pairs them."""
    for image in data.rglob("CXR_png/*.png"):
        yield Pair(image, image.parents[1] / "masks" / f"{image.stem}_mask.png")


def find_fetal_heads(data: Path) -> Iterator[Pair]:
    """Yield HC18 images with the path of their annotated outlines."""
    for image in data.rglob("*_HC.png"):
        yield Pair(image, image.with_name(f"{image.stem}_Annotation.png"))


def find_brains(data: Path) -> Iterator[Pair]:
    """Yield CC359 volumes with the path of their silver-standard masks.

    The masks may be in another folder of the dataset. A volume without one gets a path that does
    not exist.
    """
    masks = {path.name.removesuffix("_ss.nii.gz"): path for path in data.rglob("*_ss.nii.gz")}
    for image in data.rglob("*.nii.gz"):
        name = image.name.removesuffix(".nii.gz")
        if not name.endswith(("_ss", _STAPLE)):
            yield Pair(image, masks.get(name, image.with_name(f"{name}_ss.nii.gz")))


def fill_outline(outline: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the filled region of an annotated outline: 0 or 255, [H, W].

    Raises:
        InputError: the outline encloses nothing.
    """
    contours, _ = cv2.findContours(
        (outline > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    filled: npt.NDArray[np.uint8] = np.zeros(outline.shape[:2], np.uint8)
    cv2.drawContours(filled, contours, -1, 255, cv2.FILLED)
    if np.count_nonzero(filled) <= np.count_nonzero(outline):
        raise InputError("the annotation encloses no pixel: it must be a closed outline")
    return filled


def _unchanged(pair: Pair, _: Path) -> Pair:
    return pair


def _filled(pair: Pair, folder: Path) -> Pair:
    """Write the filled mask of an outline."""
    outline = cv2.imread(str(pair.reference), cv2.IMREAD_GRAYSCALE)
    if outline is None:
        raise InputError(f"{pair.reference} is not an image: download it again")
    try:
        mask = fill_outline(np.asarray(outline, np.uint8))
    except InputError as error:
        raise InputError(f"{pair.reference}: {error}") from None
    target = folder / "masks" / f"{pair.image.stem}.png"
    _write(target, cv2.imencode(".png", mask)[1].tobytes())
    return Pair(pair.image, target)


def _sliced(pair: Pair, folder: Path) -> Pair:
    """Write the slices that the published loader keeps, as pages of two TIFF files.

    Slices lie along the first axis and are turned by a quarter, as the loader does. Slices without
    reference are dropped, then :data:`END_SLICES` at each end. A TIFF has no orientation, so that
    nothing turns its pages again.
    """
    import nibabel

    image, mask = (nibabel.Nifti1Image.from_filename(p) for p in (pair.image, pair.reference))
    if image.shape != mask.shape or len(image.shape) != 3:
        raise InputError(
            f"{pair.image} has {image.shape} voxels, {pair.reference} {mask.shape}: they must be "
            "volumes of one shape"
        )
    # ``_ss`` files hold the skull-stripped intensities: every voxel above 0 is brain.
    brain = np.asanyarray(mask.dataobj) > 0
    with_brain = np.flatnonzero(brain.any(axis=(1, 2)))
    used = with_brain[END_SLICES:-END_SLICES]
    if not len(used):
        raise InputError(
            f"{pair.reference} has {counted(len(with_brain), 'slice')} with brain: more than "
            f"{2 * END_SLICES} are needed, as {END_SLICES} are dropped at each end"
        )
    name = pair.image.name.removesuffix(".nii.gz")
    target, reference = folder / "volumes" / f"{name}.tif", folder / "masks" / f"{name}.tif"
    values = np.asanyarray(image.dataobj)[used].astype(np.float32)
    _write(target, _pages(np.rot90(values, axes=(1, 2))))
    _write(reference, _pages(np.rot90(brain[used].astype(np.uint8), axes=(1, 2))))
    return Pair(target, reference)


def _pages(slices: npt.NDArray[np.generic]) -> bytes:
    """Return a TIFF file with one page for each slice of [n, H, W]."""
    first, *rest = [Pil.fromarray(np.ascontiguousarray(plane)) for plane in slices]
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=rest, compression="tiff_deflate")
    return buffer.getvalue()


LAYOUTS: Mapping[str, Layout] = {
    "lungs": Layout(find_lungs, _unchanged, "CXR_png/NAME.png and masks/NAME_mask.png"),
    "fetal-head": Layout(find_fetal_heads, _filled, "NAME_HC.png and NAME_HC_Annotation.png"),
    "brain": Layout(find_brains, _sliced, "NAME.nii.gz and NAME_ss.nii.gz"),
}


def _write(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    _write(path, text.getvalue().encode())
