"""Step 3: visual prompts, the pictures of a candidate that CLIP scores.

Five visual prompts under SaLIP's names. By default crops include the last row and column of the
box. The options ``box_end``, ``box_line``, ``contour_line``, ``contours`` and ``outside`` of
``retrieve`` switch to the published drawing, pixel for pixel. Lengths are in pixels of a working
image with a long side of 256, since CLIP resizes whole images to one size.
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
_SAM_MEAN = (124, 116, 104)  # SAM's mean pixel, RGB
_REFERENCE_SIDE = 256  # of the working image that lengths in pixels refer to


def visual_prompt(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """Return the visual prompt of one candidate.

    Args:
        working: the working image, uint8 RGB [H, W, 3]; not changed.
        candidate: a candidate of that image.
        config: the ``retrieve`` section.

    Returns:
        uint8 RGB [h, w, 3]; a square if ``padding`` is ``square``.
    """
    prompt = _PROMPTS[config.visual_prompt](working, candidate, config)
    return pad_to_square(prompt) if config.padding == "square" else prompt


def crops(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """Cut the candidate out along its box, with a black background."""
    box = _slices(candidate, config)
    return working[box] * candidate.mask[box][..., None]


def crop_expand(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """Cut the box, ``expand_px`` wider on every side, with its background.

    With ``box_end: exclusive`` it is one pixel less to the right and at the bottom.
    """
    return working[_slices(candidate, config, _scaled(config.expand_px, working))]


def bbox(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """Draw the box in red on the whole image."""
    x0, y0, x1, y1 = (int(value) for value in candidate.box)
    drawn = working.copy()
    cv2.rectangle(drawn, (x0, y0), (x1, y1), _RED, max(1, _scaled(config.box_line, working)))
    return drawn


def reverse_box_mask(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """Blend the whole image outside the box (last row and column included) with half a colour."""
    box = _slices(candidate, None)
    greyed: npt.NDArray[np.uint8]
    if config.outside == "sam_mean":
        colour = np.full_like(working, _SAM_MEAN)
        greyed = cv2.addWeighted(colour, 0.5, working, 0.5, 0.0).astype(np.uint8, copy=False)
    else:
        greyed = ((working.astype(np.uint16) + _GREY) // 2).astype(np.uint8)
    greyed[box] = working[box]
    return greyed


def contour(working: Image, candidate: Candidate, config: RetrieveConfig) -> Image:
    """Draw the candidate's contours in red on the whole image: ``outer`` or ``all``."""
    how = (
        (cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if config.contours == "all"
        else (cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    )
    outlines, _hierarchy = cv2.findContours(candidate.mask.astype(np.uint8), *how)
    drawn = working.copy()
    thickness = max(1, _scaled(config.contour_line, working))
    cv2.drawContours(drawn, outlines, -1, _RED, thickness)
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


def _slices(
    candidate: Candidate, config: RetrieveConfig | None, margin: int = 0
) -> tuple[slice, slice]:
    """Return rows and columns of the candidate's box, ``margin`` pixels wider, in the image.

    Without ``config`` the last row and column are included.
    """
    x0, y0, x1, y1 = (int(value) for value in candidate.box)
    last = 0 if config is not None and config.box_end == "exclusive" else 1
    rows = slice(max(0, y0 - margin), y1 + margin + last)
    columns = slice(max(0, x0 - margin), x1 + margin + last)
    return rows, columns


def _scaled(length: int, working: Image) -> int:
    """Scale a length in pixels from a long side of 256 to that of the working image."""
    long_side = int(max(working.shape[:2]))
    return round(length * long_side / _REFERENCE_SIDE)
