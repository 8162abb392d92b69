"""A phantom: an image and the named structures drawn into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from salip_ray.models.bundled.phantoms.shapes import Field, Mask

Role = Literal["part", "organ", "whole"]

# With fewer pixels at 256 px (in proportion elsewhere) a structure is too small to learn.
_MIN_PIXELS_AT_256 = 24


@dataclass(frozen=True)
class Structure:
    """One thing in a phantom.

    `mask` is bool [H, W]; `role` is its level of detail: a part of an organ, an organ, or a whole
    that holds organs.
    """

    name: str
    mask: Mask
    role: Role


@dataclass(frozen=True)
class Phantom:
    """A procedural image whose anatomy is known.

    `image` is uint8 RGB [H, W, 3]. `structures` are never empty; several may share a name
    (a rib each, an eye each) and they may overlap (the heart lies over the lungs).
    """

    kind: str
    image: npt.NDArray[np.uint8]
    structures: tuple[Structure, ...]
    bank: str
    index: int

    def mask(self, name: str) -> Mask:
        """Return the union of the structures called `name`, bool [H, W]; all False if none is."""
        union: Mask = np.zeros(self.image.shape[:2], dtype=np.bool_)
        for structure in self.structures:
            if structure.name == name:
                union |= structure.mask
        return union


class Legend:
    """Names what a generator draws, while it draws."""

    def __init__(self) -> None:
        self._structures: list[Structure] = []

    def add(self, name: str, role: Role, coverage: Field | Mask) -> None:
        """Add a structure by its mask or its coverage (0..1, inside above one half), [H, W]."""
        self._structures.append(Structure(name, coverage > 0.5, role))

    def drop(self, *names: str) -> None:
        """Remove the structures of these names."""
        self._structures = [s for s in self._structures if s.name not in names]

    def structures(self, shown: Mask) -> tuple[Structure, ...]:
        """Return the structures, cut to the `shown` pixels (bool [H, W]), without specks."""
        least = _MIN_PIXELS_AT_256 * (max(shown.shape) / 256) ** 2
        visible = (Structure(s.name, s.mask & shown, s.role) for s in self._structures)
        return tuple(s for s in visible if np.count_nonzero(s.mask) >= least)
