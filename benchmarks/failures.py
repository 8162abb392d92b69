"""Draw the failures: the phantoms of each kind that the recipe labels worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

from salip_ray.schema import Image, Mask

_TILE, _CAPTION = 192, 18
_REFERENCE, _LABEL, _TEXT = (90, 220, 90), (255, 60, 60), (235, 235, 235)


@dataclass(frozen=True)
class Failure:
    """One image with its reference, what the cascade labelled (None: nothing), and the Dice."""

    caption: str
    image: Image
    reference: Mask
    label: Mask | None


def failure_sheet(rows: Sequence[Sequence[Failure]], path: Path) -> None:
    """Write a PNG with a row of tiles for each kind: reference in green, label in red."""
    width = max(len(row) for row in rows) * _TILE
    sheet = np.vstack([_row(row, width) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(sheet).quantize(128).save(path, optimize=True)


def _row(failures: Sequence[Failure], width: int) -> npt.NDArray[np.uint8]:
    row = np.zeros((_TILE + _CAPTION, width, 3), np.uint8)
    for index, failure in enumerate(failures):
        left = index * _TILE
        tile = _tile(failure)
        row[: tile.shape[0], left : left + tile.shape[1]] = tile
        cv2.putText(
            row, failure.caption, (left + 4, _TILE + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _TEXT, 1,
            cv2.LINE_AA,
        )  # fmt: skip
    return row


def _tile(failure: Failure) -> npt.NDArray[np.uint8]:
    height, width = failure.image.shape[:2]
    scale = (_TILE - 4) / max(height, width)
    size = round(width * scale), round(height * scale)
    tile = cv2.resize(failure.image, size, interpolation=cv2.INTER_AREA)
    for mask, colour in ((failure.reference, _REFERENCE), (failure.label, _LABEL)):
        if mask is None:
            continue
        small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, outlines, -1, colour, 1)
    return np.asarray(tile, np.uint8)
