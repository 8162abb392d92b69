"""Step 3, crop: how a candidate is shown to CLIP.

Five visual prompts under SaLIP's names. Boxes are inclusive of their last row and column, so a mask
one pixel wide is a crop one pixel wide, not an empty one.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.config import RetrieveConfig
from salip_ray.schema import Candidate, Image

_RED = (255, 0, 0)
_GREY = 128


def visual_prompt(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """The picture of one candidate that CLIP scores.

    Args:
        working: the working image, uint8 RGB [H, W, 3]; left as it is.
        candidate: a candidate of that image.
        config: ``visual_prompt`` (see the functions below), ``expand_px``, ``padding``.

    Returns:
        uint8 RGB [h, w, 3]; square where ``padding`` is.
    """
    picture = _PROMPTS[config.visual_prompt](working, candidate, config)
    return pad_to_square(picture) if config.padding == "square" else picture


def crops(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """The candidate alone, its background black, cut to its box."""
    box = _slices(candidate)
    return working[box] * candidate.mask[box][..., None]


def crop_expand(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """The box made ``expand_px`` wider on every side, its background kept."""
    return working[_slices(candidate, config.expand_px)]


def bbox(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """The whole image with the box drawn in red."""
    x0, y0, x1, y1 = (int(value) for value in candidate.box)
    drawn = working.copy()
    cv2.rectangle(drawn, (x0, y0), (x1, y1), _RED, _line_width(working))
    return drawn


def reverse_box_mask(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """The whole image, blended half and half with grey outside of the box."""
    box = _slices(candidate)
    greyed = ((working.astype(np.uint16) + _GREY) // 2).astype(np.uint8)
    greyed[box] = working[box]
    return greyed


def contour(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """The whole image with the candidate's outlines drawn in red."""
    outlines, _hierarchy = cv2.findContours(
        candidate.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    drawn = working.copy()
    cv2.drawContours(drawn, outlines, -1, _RED, _line_width(working))
    return drawn


_PROMPTS: dict[str, Callable[[Image, Candidate, RetrieveConfig], Image]] = {
    "crops": crops,
    "crop_expand": crop_expand,
    "bbox": bbox,
    "reverse_box_mask": reverse_box_mask,
    "contour": contour,
}


def pad_to_square(picture: Image) -> Image:
    """The picture centred on a black square, so that CLIP's centre crop cuts nothing off."""
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square: npt.NDArray[np.uint8] = np.zeros((side, side, 3), dtype=np.uint8)
    square[top : top + height, left : left + width] = picture
    return square


def _slices(candidate: Candidate, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the candidate's box, ``margin`` pixels wider, within the image."""
    x0, y0, x1, y1 = (int(value) for value in candidate.box)
    rows = slice(max(0, y0 - margin), y1 + margin + 1)
    columns = slice(max(0, x0 - margin), x1 + margin + 1)
    return rows, columns


def _line_width(working: Image) -> int:
    """2 px on a 256 px image, in proportion on others: CLIP sees them all at one size."""
    long_side = int(max(working.shape[:2]))
    return max(1, round(long_side / 128))
