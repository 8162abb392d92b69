"""Procedural phantoms: medical-looking images whose anatomy is known, to train and test on.

There are three kinds: chest X-ray, axial brain MRI and fetal head ultrasound. They are drawn from
curves and noise alone, without a pixel or mask of a real image. They vary far more than scanners
do, so that real images look like one more variation to a model trained on phantoms.

A phantom depends on (kind, bank, index, size, target) only. Training, the choice of thresholds and
the reported results each use a bank of phantoms that no other step uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.models.bundled.phantoms.brain import draw_brain
from salip_ray.models.bundled.phantoms.brain.volume import draw_brain_volume
from salip_ray.models.bundled.phantoms.chest import draw_chest
from salip_ray.models.bundled.phantoms.fetal import draw_fetal
from salip_ray.models.bundled.phantoms.phantom import Phantom, Role, Structure

__all__ = [
    "BANKS",
    "KINDS",
    "TARGETS",
    "Phantom",
    "Role",
    "Structure",
    "contact_sheet",
    "make_phantom",
    "make_volume",
]

KINDS = ("chest_xray", "brain_mri", "fetal_ultrasound")
BANKS = ("train", "tune", "test")
# The organ of each kind that labelling is about.
TARGETS = {"chest_xray": "lungs", "brain_mri": "brain", "fetal_ultrasound": "fetal head"}

_Drawing = tuple[npt.NDArray[np.uint8], tuple[Structure, ...]]
_DRAW: dict[str, Callable[..., _Drawing]] = {
    "chest_xray": draw_chest,
    "brain_mri": draw_brain,
    "fetal_ultrasound": draw_fetal,
}
_MIN_SIZE = 64
# A pose or crop may push the target out of sight: then the next drawing of the same stream is
# taken, which is as deterministic as the first.
_MAX_DRAWINGS = 20
_MIN_TARGET_AREA = 0.02


def make_phantom(
    kind: str, index: int, *, bank: str = "train", size: int = 256, target: bool = True
) -> Phantom:
    """Draw phantom `index` of `kind` in `bank`; its longer side is `size` pixels.

    Without `target` it is an image of the same kind that does not show the organ, such as a slice
    above the brain. The bundled SAM was trained without these, its CLIP with some.

    The same arguments give the same bytes. Raises ValueError for an unknown kind or bank, a
    negative index or a size under 64.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not a kind of phantom, choose from {', '.join(KINDS)}")
    _check(bank, index, size)
    entropy = [BANKS.index(bank), KINDS.index(kind), index, *([] if target else [1])]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    if not target:
        image, structures = _DRAW[kind](rng, size, target=False)
        return Phantom(kind, image, structures, bank, index)
    for _ in range(_MAX_DRAWINGS):
        image, structures = _DRAW[kind](rng, size)
        phantom = Phantom(kind, image, structures, bank, index)
        if phantom.mask(TARGETS[kind]).mean() >= _MIN_TARGET_AREA:
            return phantom
    raise AssertionError(f"{kind} phantom {index} of bank {bank} never showed its target")


def make_volume(
    index: int, *, bank: str = "train", size: int = 256, slices: int = 40
) -> tuple[Phantom, ...]:
    """Draw the axial slices of a head, from the neck to the scalp; the longer side is `size`.

    The first and the last slices show no brain. The same arguments give the same bytes. Raises
    ValueError for an unknown bank, a negative index, a size under 64 or less than one slice.
    """
    _check(bank, index, size)
    if slices < 1:
        raise ValueError(f"slices: {slices} is no volume, use 1 or more")
    entropy = [BANKS.index(bank), KINDS.index("brain_mri"), index, 2]
    return tuple(
        Phantom("brain_mri", image, structures, bank, index)
        for image, structures in draw_brain_volume(entropy, size, slices)
    )


def _check(bank: str, index: int, size: int) -> None:
    if bank not in BANKS:
        raise ValueError(f"bank: {bank!r} is not a bank of seeds, choose from {', '.join(BANKS)}")
    if index < 0:
        raise ValueError(f"index: {index} is negative, phantoms count from 0")
    if size < _MIN_SIZE:
        raise ValueError(f"size: {size} px is too small to draw in, use {_MIN_SIZE} or more")


def contact_sheet(
    kind: str,
    indices: Iterable[int],
    *,
    bank: str = "train",
    columns: int = 6,
    tile: int = 192,
    outline: bool = True,
) -> npt.NDArray[np.uint8]:
    """Draw phantoms side by side, uint8 RGB [rows * tile, columns * tile, 3].

    With `outline` the target's contour is drawn in red.
    """
    tiles = []
    for index in indices:
        phantom = make_phantom(kind, index, bank=bank, size=tile)
        picture = phantom.image.copy()
        if outline:
            target = phantom.mask(TARGETS[kind]).astype(np.uint8)
            contours, _ = cv2.findContours(target, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, contours, -1, (255, 40, 40), 1)
        padded = np.zeros((tile, tile, 3), np.uint8)
        padded[: picture.shape[0], : picture.shape[1]] = picture
        tiles.append(padded)
    tiles += [np.zeros((tile, tile, 3), np.uint8)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.vstack(rows)
