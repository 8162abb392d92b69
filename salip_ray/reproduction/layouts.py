"""The three datasets of the paper as they are downloaded, as inputs of a job with references.

Each dataset is found by its file names, as the published loaders find it:

    lungs       ``CXR_png/NAME.png`` and ``masks/NAME_mask.png`` (chest X-rays)
    fetal-head  ``NAME_HC.png`` and ``NAME_HC_Annotation.png`` (HC18, outlines that are filled)
    brain       ``NAME.nii.gz`` and ``NAME_ss.nii.gz`` (CC359, slices along the first axis)

Source: ``data/cxr.py``, ``data/hc18.py`` and ``data/cc359.py`` of aleemsidra/SaLIP.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from salip_ray.errors import InputError
from salip_ray.output.store import Store
from salip_ray.reproduction.prepared_files import (
    FOLDER,
    Pair,
    few_slices,
    filled,
    whole_volume,
)
from salip_ray.sources.locations import join
from salip_ray.wording import counted


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


def _unchanged(image: Path, reference: Path, _: Store) -> Pair:
    return Pair(str(image), str(reference))


def _list(store: Store, name: str, pairs: Sequence[Pair]) -> Listing:
    images, references = f"{FOLDER}/{name}.csv", f"{FOLDER}/{name}-references.csv"
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
    "fetal-head": Layout(find_fetal_heads, filled, "NAME_HC.png and NAME_HC_Annotation.png"),
    "brain": Layout(
        find_brains,
        whole_volume,
        "NAME.nii.gz and NAME_ss.nii.gz",
        tuning_files=2,
        prepare_tuning=few_slices,
    ),
}
