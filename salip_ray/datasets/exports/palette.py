"""Label maps as palette PNGs, which show colours in any paint tool and hold class ids."""

from __future__ import annotations

import colorsys
import io
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

from salip_ray.output.masks import LabelMap
from salip_ray.sources.formats.pillow_images import own_pixel_limit

Colour = tuple[int, int, int]

IGNORE = 255
"""Palette index of pixels to ignore; label maps of more than 254 classes are no palette PNGs."""

_FIRST: tuple[Colour, ...] = (
    *((230, 60, 60), (60, 160, 230), (70, 190, 80), (230, 170, 40), (170, 90, 210)),
    *((40, 190, 180), (240, 120, 180), (150, 110, 60)),
)
_IGNORE_COLOUR: Colour = (255, 0, 255)
_GOLDEN_RATIO = 0.618033988749895  # spreads hues evenly, however many there are


@cache
def colours() -> tuple[Colour, ...]:
    """Return the colour of each palette index: black, then one per class, then that of 255.

    All differ, and none but black is grey, so a colour tells the class.
    """
    table: list[Colour] = [(0, 0, 0), *_FIRST]
    step = 0
    while len(table) < IGNORE:
        step += 1
        red, green, blue = colorsys.hsv_to_rgb(
            step * _GOLDEN_RATIO % 1, 0.5 + 0.12 * (step % 4), 0.95 - 0.13 * (step % 3)
        )
        colour = (round(red * 255), round(green * 255), round(blue * 255))
        if colour not in table:
            table.append(colour)
    return (*table, _IGNORE_COLOUR)


def encode(label_map: LabelMap) -> bytes:
    """Return a uint8 label map [H, W] as a palette PNG whose indices are the class ids."""
    picture = Pil.fromarray(label_map, "L")
    picture.putpalette([channel for colour in colours() for channel in colour])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def decode(data: bytes) -> LabelMap:
    """Return the label map in a PNG, however a paint tool saved it.

    A pixel of a grey PNG holds a class id. In a palette or RGB PNG its colour tells the class. If
    none of a palette's colours is that of a class, its indices are the class ids.

    Raises:
        ValueError: the bytes are no PNG, or a colour is that of no class.
    """
    try:
        with own_pixel_limit(), Pil.open(io.BytesIO(data), formats=("PNG",)) as picture:
            picture.load()
            if picture.mode in {"1", "L", "LA"}:
                return np.array(picture.convert("L") if picture.mode != "1" else picture, np.uint8)
            if picture.mode.startswith("I"):
                return np.array(picture, np.uint16)
            indices = np.array(picture, np.uint8) if picture.mode == "P" else None
            rgb = np.array(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"it is not a PNG file ({error})") from None
    if indices is None and bool((rgb == rgb[..., :1]).all()):
        return np.ascontiguousarray(rgb[..., 0])  # a grey PNG, saved in colour
    codes = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    by_colour, unknown = _classes(codes)
    if unknown is None:
        return by_colour
    if indices is not None and not by_colour.any():
        return indices
    raise ValueError(
        f"it has the colour #{unknown:06x}, which is that of no class: paint with the colours of "
        "the original mask, without smooth edges"
    )


def _classes(codes: npt.NDArray[np.uint32]) -> tuple[LabelMap, int | None]:
    """Return the class of each colour code [H, W], and a code of no class if there is one."""
    class_of = {(r << 16) | (g << 8) | b: index for index, (r, g, b) in enumerate(colours())}
    values, positions = np.unique(codes, return_inverse=True)
    unknown = next((int(value) for value in values if int(value) not in class_of), None)
    table = np.array([class_of.get(int(value), 0) for value in values], np.uint8)
    return table[positions].reshape(codes.shape), unknown
