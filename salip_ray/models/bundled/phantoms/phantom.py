"""What a phantom is: an image and the named structures drawn into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .shapes import Mask

Role = Literal["part", "organ", "whole"]


@dataclass(frozen=True)
class Structure:
    """One thing in a phantom. `mask` is bool [H, W]; `role` is its level of detail: a part of an
    organ, an organ, or a whole that holds organs."""

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
        """Union of the structures called `name`, bool [H, W]; all False where there is none."""
        union: Mask = np.zeros(self.image.shape[:2], dtype=np.bool_)
        for structure in self.structures:
            if structure.name == name:
                union |= structure.mask
        return union
