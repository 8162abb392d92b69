"""Draw pictures for people: a page with images fitted into tiles, and masks on them.

Everything is drawn at twice its size and reduced at the end, for smooth edges.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from salip_ray.schema import Image, Mask

Colour = tuple[int, int, int]
Tile = tuple[int, int]  #: width, height

PAPER: Colour = (255, 255, 255)
INK: Colour = (28, 32, 38)
SOFT_INK: Colour = (112, 120, 130)
RULE: Colour = (224, 227, 231)
TILE: Colour = (16, 18, 22)
SCALE = 2  # drawn this many times larger than saved
MARGIN = 28
_TINT = 0.38
#: Colours of classes, and in sequence of candidates; distinct in any colour vision.
CLASS_COLOURS: tuple[Colour, ...] = (
    (38, 190, 166),
    (90, 150, 245),
    (190, 120, 230),
    (240, 98, 90),
    (240, 165, 60),
    (240, 120, 180),
)


class Canvas:
    """A page of ``width`` x ``height`` pixels; coordinates are those of the saved picture.

    It is drawn :data:`SCALE` times larger and reduced when it is saved.
    """

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.page = Pil.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self.draw = ImageDraw.Draw(self.page)

    def text(
        self, x: float, y: float, text: str, size: float, colour: Colour, anchor: str = "ls"
    ) -> float:
        """Write a line at an anchor (left, middle or right; baseline); return its width."""
        font = ImageFont.load_default(size * SCALE)
        self.draw.text((x * SCALE, y * SCALE), text, colour, font=font, anchor=anchor)
        return self.draw.textlength(text, font=font) / SCALE

    def rule(self, x0: float, y: float, x1: float) -> None:
        """Draw a thin horizontal line."""
        self.draw.line((x0 * SCALE, y * SCALE, x1 * SCALE, y * SCALE), RULE, SCALE)

    def swatch(self, x: float, y: float, colour: Colour, *, filled: bool = True) -> None:
        """Draw a small sign for a legend, its middle at ``y``."""
        box = tuple(v * SCALE for v in (x, y - 5, x + 14, y + 5))
        if filled:
            self.draw.rounded_rectangle(box, 2 * SCALE, colour)
        else:
            self.draw.line((box[0], y * SCALE, box[2], y * SCALE), colour, 3 * SCALE)

    def picture(self, x: float, y: float, pixels: Image) -> None:
        """Paste pixels that have the drawing scale already."""
        self.page.paste(Pil.fromarray(pixels), (round(x * SCALE), round(y * SCALE)))

    def save(self, path: Path) -> None:
        """Write the page as a PNG."""
        self.page.resize(self.size, Pil.Resampling.LANCZOS).save(path, optimize=True)


def placed(shape: tuple[int, ...], tile: Tile) -> tuple[int, int, int, int]:
    """Return the box of an image of ``shape`` (height, width) that is fitted into a tile.

    Returns:
        Left, top, width and height, at the drawing scale.
    """
    width, height = (side * SCALE for side in tile)
    factor = min(width / shape[1], height / shape[0])
    inner = max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))
    return (width - inner[0]) // 2, (height - inner[1]) // 2, *inner


def fitted(image: Image, tile: Tile) -> Image:
    """Return the image fitted into a dark tile, at the drawing scale."""
    left, top, width, height = placed(image.shape, tile)
    smaller = width < image.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    page = np.full((tile[1] * SCALE, tile[0] * SCALE, 3), TILE, np.uint8)
    page[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=interpolation
    )
    return page


def fitted_mask(mask: Mask, tile: Tile) -> Mask:
    """Return a mask fitted into a tile like its image."""
    left, top, width, height = placed(mask.shape, tile)
    page: Mask = np.zeros((tile[1] * SCALE, tile[0] * SCALE), np.bool_)
    smooth = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    page[top : top + height, left : left + width] = smooth >= 0.5
    return page


def tinted(pixels: Image, mask: Mask, colour: Colour) -> None:
    """Tint the pixels of a mask, in place."""
    pixels[mask] = (pixels[mask] * (1 - _TINT) + np.array(colour, np.float64) * _TINT).astype(
        np.uint8
    )


def outlined(pixels: Image, mask: Mask, colour: Colour, thickness: int) -> None:
    """Draw the outlines of a mask, holes included, in place."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(pixels, contours, -1, colour, thickness, cv2.LINE_AA)
