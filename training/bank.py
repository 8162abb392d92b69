"""Phantoms that are generated once and cached on disk, so that no training step waits for them.

A bank holds one kind of phantom: grey images and, for each pixel, a bit field. Bit `s` is set where
structure `s` is. Structures nest and overlap: a ventricle lies in the brain, which lies in the
head. Arrays are memory-mapped .npy files; a .json file next to them names the bits.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from salip_ray.models.bundled.phantoms import make_phantom

Split = Literal["train", "tune", "test"]
Grey = npt.NDArray[np.uint8]  #: [H, W]
BitField = npt.NDArray[np.uint32]  #: [H, W], bit s set where structure s is

_MAX_BITS = 32
_MAX_NAMESAKES = 4  # four of twenty ribs are enough to learn what a rib is


@dataclass(frozen=True, slots=True)
class Bank:
    """Phantoms of one kind.

    Attributes:
        kind: one of `phantoms.KINDS`.
        names: of structure (bit) `s`; namesakes (two arms) have a bit each and the same name.
        roles: "part", "organ" or "whole" of structure `s`.
        images: uint8 [N, S, S], each phantom in the upper left corner.
        labels: uint32 [N, S, S], bit `s` set where structure `s` is.
        shapes: int64 [N, 2], height and width of each phantom.
    """

    kind: str
    names: tuple[str, ...]
    roles: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint32]
    shapes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def phantom(self, index: int) -> tuple[Grey, BitField]:
        """Return image and labels of one phantom, [h, w] without padding."""
        height, width = self.shapes[index]
        return self.images[index, :height, :width], self.labels[index, :height, :width]

    def head(self, count: int) -> Bank:
        """Return the first `count` phantoms."""
        return Bank(
            self.kind,
            self.names,
            self.roles,
            self.images[:count],
            self.labels[:count],
            self.shapes[:count],
        )


def open_bank(
    folder: Path, kind: str, split: Split, count: int, *, size: int = 256, workers: int = 2
) -> Bank:
    """Return the first `count` phantoms of a split, from `folder` or generated into it.

    A stored bank is reused only if it is large enough and its first phantom is the one that the
    generator draws today.
    """
    stem = f"{kind}-{split}-{size}"
    if (folder / f"{stem}.json").exists():
        bank = _read(folder, stem, kind)
        today = make_phantom(kind, 0, bank=split, size=size).image[..., 0]
        stored = bank.phantom(0)[0]
        if len(bank) >= count and np.array_equal(stored, today):
            return bank.head(count)
    _write(folder, stem, _draw(kind, split, count, size=size, workers=workers), count, size)
    return _read(folder, stem, kind)


def _read(folder: Path, stem: str, kind: str) -> Bank:
    structures = json.loads((folder / f"{stem}.json").read_text())
    images, labels, shapes = (
        np.load(folder / f"{stem}.{part}.npy", mmap_mode="r")
        for part in ("images", "labels", "shapes")
    )
    return Bank(
        kind, tuple(structures["names"]), tuple(structures["roles"]), images, labels, shapes
    )


_Structure = tuple[str, str, npt.NDArray[np.uint8]]  # name, role, packed mask


def _draw(
    kind: str, split: Split, count: int, *, size: int, workers: int
) -> Iterator[tuple[Grey, list[_Structure]]]:
    draw = partial(_draw_one, kind=kind, split=split, size=size)
    if workers == 1:
        yield from map(draw, range(count))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(draw, range(count), chunksize=16)


def _draw_one(index: int, *, kind: str, split: Split, size: int) -> tuple[Grey, list[_Structure]]:
    """Return one phantom with packed masks, which are small to send between processes."""
    phantom = make_phantom(kind, index, bank=split, size=size)
    masks: list[_Structure] = [(s.name, s.role, np.packbits(s.mask)) for s in phantom.structures]
    return phantom.image[..., 0], masks


def _write(
    folder: Path,
    stem: str,
    phantoms: Iterator[tuple[Grey, list[_Structure]]],
    count: int,
    size: int,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / f"{stem}.json"
    listing.unlink(missing_ok=True)  # written last: a bank without it is incomplete

    def create(part: str, dtype: type[np.generic], *shape: int) -> npt.NDArray[Any]:
        return np.lib.format.open_memmap(
            folder / f"{stem}.{part}.npy", "w+", np.dtype(dtype), (count, *shape)
        )

    images = create("images", np.uint8, size, size)
    labels = create("labels", np.uint32, size, size)
    shapes = create("shapes", np.int64, 2)
    bits: dict[tuple[str, str, int], int] = {}  # (name, role, number among its namesakes) -> bit
    for index, (image, structures) in enumerate(phantoms):
        height, width = image.shape
        images[index, :height, :width] = image
        shapes[index] = height, width
        namesakes: Counter[str] = Counter()
        for name, role, packed in structures:
            which, namesakes[name] = namesakes[name], namesakes[name] + 1
            key = (name, role, which)
            if which >= _MAX_NAMESAKES or (key not in bits and len(bits) >= _MAX_BITS):
                continue
            bit = bits.setdefault(key, len(bits))
            mask = np.unpackbits(packed, count=height * width).reshape(height, width)
            labels[index, :height, :width] |= mask.astype(np.uint32) << np.uint32(bit)
    listing.write_text(
        json.dumps({"names": [name for name, _, _ in bits], "roles": [role for _, role, _ in bits]})
    )
