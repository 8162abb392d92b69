"""The crops that CLIP trains on: generated once, cached on disk, drawn in groups of one image.

A group is what CLIP sees of one image: up to `GROUP` candidates, shown as one visual prompt by the
functions of the cascade. Losses compare candidates within a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from salip_ray.cascade.visual_prompts import visual_prompt
from salip_ray.config import RetrieveConfig
from salip_ray.config.cascade import VisualPrompt
from salip_ray.models.bundled.clip_net import IMAGE_SIZE, bundled_preprocess
from salip_ray.models.bundled.phantoms import KINDS, make_phantom
from salip_ray.schema import Image, Mask
from training.augment import augment
from training.bank import Split
from training.clip_candidates import (
    NamedMask,
    Verdict,
    candidate,
    judge,
    structure_masks,
)

GROUP = 16  #: most candidates of one image
_PROMPTS: tuple[VisualPrompt, ...] = get_args(VisualPrompt)
_SHARE_OF_CROPS = 0.6  # the cascade's default prompt; the other four share the rest
_SEED = 20_240_612  # of the candidates drawn around a phantom's structures
_MAX_STRUCTURES = 32  # what a bit field of `augment` holds


@dataclass(frozen=True, slots=True)
class CropBank:
    """N groups of M = `GROUP` crops; smaller groups are filled up with invalid crops.

    Attributes:
        crops: uint8 RGB [N, M, 64, 64, 3], resized and padded as the bundled preprocess does.
        labels: int16 [N, M, 2], class and next most likely class; -1 where invalid.
        shares: float32 [N, M], degree to which a crop is the first of its two classes.
        grades: float32 [N, M], quality as a prompt for the organ of its kind.
        kinds: int16 [N], index into `phantoms.KINDS`.
    """

    crops: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int16]
    shares: npt.NDArray[np.float32]
    grades: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.crops)


_DTYPES: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "crops": (np.uint8, (GROUP, IMAGE_SIZE, IMAGE_SIZE, 3)),
    "labels": (np.int16, (GROUP, 2)),
    "shares": (np.float32, (GROUP,)),
    "grades": (np.float32, (GROUP,)),
    "kinds": (np.int16, ()),
}
Group = dict[str, npt.NDArray[np.generic]]


def open_crop_bank(folder: Path, split: Split, count: int, *, workers: int = 1) -> CropBank:
    """Return `count` groups made from structures, read from `folder` or generated into it.

    A stored bank is reused only if its first groups are those that are made today.
    """
    stem = f"crops-{split}-{count}"
    if not (folder / f"{stem}.done").exists() or _is_outdated(read_crop_bank(folder, stem), split):
        write_crop_bank(folder, stem, count, _made(split, count, workers))
    return read_crop_bank(folder, stem)


def _is_outdated(bank: CropBank, split: Split) -> bool:
    """Return whether the first group of a kind is not the one that is made today."""
    return any(
        not np.array_equal(getattr(bank, name)[index], value)
        for index in range(min(len(KINDS), len(bank)))
        for name, value in structure_group(index, split=split).items()
    )


def write_crop_bank(folder: Path, stem: str, count: int, groups: Iterator[Group]) -> None:
    """Write `count` groups as .npy files, and last the marker of a complete bank."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.done").unlink(missing_ok=True)
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{stem}.{name}.npy", "w+", np.dtype(dtype), (count, *shape)
        )
        for name, (dtype, shape) in _DTYPES.items()
    }
    for index, group in enumerate(groups):
        for name, value in group.items():
            arrays[name][index] = value
    for array in arrays.values():
        array.flush()
    (folder / f"{stem}.done").touch()


def read_crop_bank(folder: Path, stem: str) -> CropBank:
    """Return a bank that `write_crop_bank` wrote, memory-mapped."""
    return CropBank(
        **{name: np.load(folder / f"{stem}.{name}.npy", mmap_mode="r") for name in _DTYPES}
    )


def _made(split: Split, count: int, workers: int) -> Iterator[Group]:
    make = partial(structure_group, split=split)
    if workers == 1:
        yield from map(make, range(count))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(make, range(count), chunksize=16)


def structure_group(index: int, *, split: Split) -> Group:
    """Make group `index` of a split. The kinds take turns; each phantom is used once."""
    kind = KINDS[index % len(KINDS)]
    rng = np.random.default_rng((_SEED, index))
    image, structures = augmented(kind, index // len(KINDS), split, rng)
    masks = structure_masks(image[..., 0], structures, kind, GROUP, rng)
    return pack_group(image, masks, judge(masks, structures, kind), kind, rng)


def augmented(
    kind: str, index: int, split: Split, rng: np.random.Generator, *, target: bool = True
) -> tuple[Image, list[NamedMask]]:
    """Return an augmented phantom: image uint8 RGB [H, W, 3] and its visible structures.

    Without `target` it does not show the organ of its kind.
    """
    phantom = make_phantom(kind, index, bank=split, target=target)
    drawn = phantom.structures
    if len(drawn) > _MAX_STRUCTURES:  # there are many ribs, and some of them are enough
        ribs = [id(structure) for structure in drawn if structure.name == "rib"]
        left_out = set(ribs[: len(drawn) - _MAX_STRUCTURES])
        drawn = tuple(structure for structure in drawn if id(structure) not in left_out)
        drawn = drawn[:_MAX_STRUCTURES]
    bits = np.zeros(phantom.image.shape[:2], np.uint32)
    for bit, structure in enumerate(drawn):
        bits |= structure.mask.astype(np.uint32) << np.uint32(bit)
    sample = augment(phantom.image[..., 0], bits, kind, rng)
    height, width = sample.content
    grey = sample.image[:height, :width].round().astype(np.uint8)
    labels = sample.labels[:height, :width]
    structures = [
        NamedMask(structure.name, (labels >> np.uint32(bit) & np.uint32(1)).astype(np.bool_))
        for bit, structure in enumerate(drawn)
    ]
    return np.repeat(grey[..., None], 3, axis=2), [s for s in structures if s.mask.any()]


def pack_group(
    image: Image,
    masks: Sequence[Mask],
    verdicts: Sequence[Verdict],
    kind: str,
    rng: np.random.Generator,
) -> Group:
    """Return the arrays of one group; one random visual prompt shows all its candidates."""
    others = [prompt for prompt in _PROMPTS if prompt != "crops"]
    prompt: VisualPrompt = (
        "crops" if rng.random() < _SHARE_OF_CROPS else others[rng.integers(len(others))]
    )
    group: Group = {name: np.zeros(shape, dtype=dtype) for name, (dtype, shape) in _DTYPES.items()}
    group["labels"][:] = -1
    group["kinds"] = np.asarray(KINDS.index(kind), np.int16)
    crops = show(image, masks, prompt)
    for index, (crop, verdict) in enumerate(zip(crops, verdicts, strict=True)):
        group["crops"][index] = crop
        group["labels"][index] = verdict.label, verdict.other
        group["shares"][index] = verdict.share
        group["grades"][index] = verdict.grade
    return group


def show(image: Image, masks: Sequence[Mask], prompt: VisualPrompt) -> Iterator[Image]:
    """Yield each mask as the bundled CLIP sees it before normalisation: uint8 RGB [64, 64, 3]."""
    config = RetrieveConfig(visual_prompt=prompt)
    resize, pad = bundled_preprocess().transforms[:2]  # type: ignore[attr-defined]
    for index, mask in enumerate(masks):
        crop = PILImage.fromarray(visual_prompt(image, candidate(mask, index), config))
        yield np.asarray(pad(resize(crop)))
