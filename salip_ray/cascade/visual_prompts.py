"""Step 3: visual prompts, the pictures of a candidate that CLIP scores.

Five visual prompts under SaLIP's names. Boxes include their last row and column, so a mask that is
one pixel wide gives a crop that is one pixel wide.
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
    """Return the visual prompt of one candidate.

    Args:
        working: the working image, uint8 RGB [H, W, 3]; not changed.
        candidate: a candidate of that image.
        config: ``visual_prompt`` (see the functions below), ``expand_px`` and ``padding`` are used.

    Returns:
        uint8 RGB [h, w, 3]; a square if ``padding`` is ``square``.
    """
    prompt = _PROMPTS[config.visual_prompt](working, candidate, config)
    return pad_to_square(prompt) if config.padding == "square" else prompt


def crops(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """Cut the candidate out along its box, with a black background."""
    box = _slices(candidate)
    return working[box] * candidate.mask[box][..., None]


def crop_expand(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """Cut the box, ``expand_px`` wider on every side, with its background."""
    return working[_slices(candidate, config.expand_px)]


def bbox(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """Draw the box in red on the whole image."""
    x0, y0, x1, y1 = (int(value) for value in candidate.box)
    drawn = working.copy()
    cv2.rectangle(drawn, (x0, y0), (x1, y1), _RED, _line_width(working))
    return drawn


def reverse_box_mask(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """Blend the whole image outside the box half and half with grey."""
    box = _slices(candidate)
    greyed = ((working.astype(np.uint16) + _GREY) // 2).astype(np.uint8)
    greyed[box] = working[box]
    return greyed


def contour(working: Image, candidate: Candidate, _: RetrieveConfig) -> Image:
    """Draw the candidate's outer contours in red on the whole image."""
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


def pad_to_square(prompt: Image) -> Image:
    """Centre a visual prompt on a black square, so that CLIP's centre crop removes none of it."""
    height, width = prompt.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square: npt.NDArray[np.uint8] = np.zeros((side, side, 3), dtype=np.uint8)
    square[top : top + height, left : left + width] = prompt
    return square


def _slices(candidate: Candidate, margin: int = 0) -> tuple[slice, slice]:
    """Return rows and columns of the candidate's box, ``margin`` pixels wider, in the image."""
    x0, y0, x1, y1 = (int(value) for value in candidate.box)
    rows = slice(max(0, y0 - margin), y1 + margin + 1)
    columns = slice(max(0, x0 - margin), x1 + margin + 1)
    return rows, columns


def _line_width(working: Image) -> int:
    """Return 2 px for a 256 px image, in proportion for others: CLIP resizes all to one size."""
    long_side = int(max(working.shape[:2]))
    return max(1, round(long_side / 128))
