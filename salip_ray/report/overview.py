"""One picture of many labelled images, each beside its labels by several methods.

A mask is drawn as a tint with its outline, the reference as a light line over it, and the Dice of
the two below. Everything is drawn at twice the size and reduced at the end, for smooth edges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from salip_ray.rows import Image, Mask

Colour = tuple[int, int, int]

_PAPER: Colour = (255, 255, 255)
_INK: Colour = (28, 32, 38)
_SOFT_INK: Colour = (112, 120, 130)
_RULE: Colour = (224, 227, 231)
_TILE: Colour = (16, 18, 22)
_REFERENCE: Colour = (255, 214, 64)
_METHOD_COLOURS: Mapping[str, Colour] = {
    "unprompted": (240, 98, 90),
    "cascade": (38, 190, 166),
    "gt_sam": (90, 150, 245),
}
_OTHER_COLOUR: Colour = (190, 120, 230)
_TINT = 0.38
_SCALE = 2  # drawn this many times larger than kept

_MARGIN, _GAP, _PAIR_GAP = 28, 6, 26
_HEADER, _FOOTER, _CAPTION, _BAND_GAP = 70, 28, 28, 24
_NOTES_WIDTH = 232


@dataclass(frozen=True)
class Panel:
    """One image of an overview.

    Attributes:
        image: uint8 RGB [H, W, 3].
        reference: bool [H, W].
        masks: the mask [H, W] of each method to show, in order.
        dice: the Dice of each method on this image.
    """

    image: Image
    reference: Mask
    masks: Mapping[str, Mask]
    dice: Mapping[str, float]


@dataclass(frozen=True)
class Band:
    """The images of one class, with what is written beside them.

    Attributes:
        title: the class.
        subtitle: what the images are, in a few words.
        panels: the images; all bands show the same methods.
        mean_dice: the mean Dice of each method over all images of the class, not only those shown.
        n: how many images these are.
    """

    title: str
    subtitle: str
    panels: Sequence[Panel]
    mean_dice: Mapping[str, float]
    n: int


def overview(
    bands: Sequence[Band],
    path: Path,
    *,
    method_names: Mapping[str, str],
    heading: str,
    footnote: str = "",
    tile: tuple[int, int] = (212, 184),
    columns: int = 2,
) -> None:
    """Draw bands of labelled images, one below the other, and write them as a PNG.

    Args:
        bands: what to draw; a band takes as many lines as its panels need.
        path: the file to write.
        method_names: the methods to show and how a person calls them, in order.
        heading: the line at the top.
        footnote: a line at the bottom, beside the legend.
        tile: width and height of one picture, in pixels; images are fitted into it.
        columns: panels side by side; each is the image and one picture a method.
    """
    methods = [name for name in method_names if any(name in band.mean_dice for band in bands)]
    tile_w, tile_h = tile
    panel_w = (1 + len(methods)) * (tile_w + _GAP) - _GAP
    lines = [math.ceil(len(band.panels) / columns) for band in bands]
    line_h = tile_h + _CAPTION
    width = 2 * _MARGIN + _NOTES_WIDTH + columns * (panel_w + _PAIR_GAP) - _PAIR_GAP
    height = _HEADER + _FOOTER + _MARGIN + sum(n * line_h for n in lines)
    height += _BAND_GAP * len(bands)
    canvas = _Canvas(width, height)
    canvas.text(_MARGIN, 40, heading, 26, _INK)
    top = _HEADER
    for band, n_lines in zip(bands, lines, strict=True):
        canvas.rule(_MARGIN, top - _BAND_GAP // 2 + 2, width - _MARGIN)
        _draw_notes(canvas, band, methods, method_names, top + 8)
        for index, panel in enumerate(band.panels):
            line, column = divmod(index, columns)
            left = _MARGIN + _NOTES_WIDTH + column * (panel_w + _PAIR_GAP)
            _draw_panel(canvas, panel, methods, method_names, left, top + 8 + line * line_h, tile)
        top += n_lines * line_h + _BAND_GAP
    _draw_legend(canvas, methods, method_names, footnote, top + 26)
    canvas.save(path)


class _Canvas:
    """A page whose coordinates are those of the kept picture, drawn at ``_SCALE`` times that."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.page = Pil.new("RGB", (width * _SCALE, height * _SCALE), _PAPER)
        self.draw = ImageDraw.Draw(self.page)

    def text(
        self, x: float, y: float, text: str, size: float, colour: Colour, anchor: str = "ls"
    ) -> float:
        """Write a line at an anchor (left, middle or right; baseline); returns its width."""
        font = ImageFont.load_default(size * _SCALE)
        self.draw.text((x * _SCALE, y * _SCALE), text, colour, font=font, anchor=anchor)
        return self.draw.textlength(text, font=font) / _SCALE

    def rule(self, x0: float, y: float, x1: float) -> None:
        self.draw.line((x0 * _SCALE, y * _SCALE, x1 * _SCALE, y * _SCALE), _RULE, _SCALE)

    def swatch(self, x: float, y: float, colour: Colour, *, filled: bool = True) -> None:
        """A small sign for a legend, its middle at ``y``."""
        box = tuple(v * _SCALE for v in (x, y - 5, x + 14, y + 5))
        if filled:
            self.draw.rounded_rectangle(box, 2 * _SCALE, colour)
        else:
            self.draw.line((box[0], y * _SCALE, box[2], y * _SCALE), colour, 3 * _SCALE)

    def picture(self, x: float, y: float, pixels: Image) -> None:
        self.page.paste(Pil.fromarray(pixels), (round(x * _SCALE), round(y * _SCALE)))

    def save(self, path: Path) -> None:
        self.page.resize(self.size, Pil.Resampling.LANCZOS).save(path, optimize=True)


def _draw_notes(
    canvas: _Canvas,
    band: Band,
    methods: Sequence[str],
    method_names: Mapping[str, str],
    top: float,
) -> None:
    canvas.text(_MARGIN, top + 20, band.title, 24, _INK)
    canvas.text(_MARGIN, top + 43, band.subtitle, 15, _SOFT_INK)
    canvas.text(_MARGIN, top + 82, f"mean Dice, {band.n} images", 15, _SOFT_INK)
    for line, method in enumerate(methods):
        y = top + 108 + 25 * line
        canvas.swatch(_MARGIN, y - 5, _METHOD_COLOURS.get(method, _OTHER_COLOUR))
        canvas.text(_MARGIN + 22, y, method_names[method], 16, _INK)
        figure = _figure(band.mean_dice.get(method, math.nan))
        canvas.text(_MARGIN + _NOTES_WIDTH - 30, y, figure, 16, _INK, anchor="rs")


def _draw_panel(
    canvas: _Canvas,
    panel: Panel,
    methods: Sequence[str],
    method_names: Mapping[str, str],
    left: float,
    top: float,
    tile: tuple[int, int],
) -> None:
    width, height = tile
    canvas.picture(left, top, _fitted(panel.image, tile))
    canvas.text(left + 1, top + height + 18, "input", 14.5, _SOFT_INK)
    for column, method in enumerate(methods, start=1):
        x = left + column * (width + _GAP)
        colour = _METHOD_COLOURS.get(method, _OTHER_COLOUR)
        mask = panel.masks.get(method)
        canvas.picture(x, top, _fitted(panel.image, tile, mask, panel.reference, colour))
        canvas.text(x + 1, top + height + 18, method_names[method], 14.5, _SOFT_INK)
        figure = _figure(panel.dice.get(method, math.nan))
        canvas.text(x + width - 1, top + height + 18, figure, 14.5, _INK, anchor="rs")


def _draw_legend(
    canvas: _Canvas,
    methods: Sequence[str],
    method_names: Mapping[str, str],
    footnote: str,
    baseline: float,
) -> None:
    x: float = _MARGIN
    entries = [(method_names[m], _METHOD_COLOURS.get(m, _OTHER_COLOUR), True) for m in methods]
    for name, colour, filled in [*entries, ("reference outline", _REFERENCE, False)]:
        canvas.swatch(x, baseline - 5, colour, filled=filled)
        x += 21 + canvas.text(x + 21, baseline, name, 15, _SOFT_INK) + 24
    if footnote:
        right = canvas.size[0] - _MARGIN
        canvas.text(right, baseline, footnote, 15, _SOFT_INK, anchor="rs")


def _fitted(
    image: Image,
    tile: tuple[int, int],
    mask: Mask | None = None,
    reference: Mask | None = None,
    colour: Colour = _OTHER_COLOUR,
) -> Image:
    """The image fitted into a tile, with mask and reference on it, at the drawing scale."""
    width, height = (side * _SCALE for side in tile)
    factor = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels: Image = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
    if mask is not None and mask.any():
        inside = _resized(mask, size)
        pixels[inside] = (
            pixels[inside] * (1 - _TINT) + np.array(colour, np.float64) * _TINT
        ).astype(np.uint8)
        _outline(pixels, inside, colour, 2 * _SCALE)
    if reference is not None and reference.any():
        _outline(pixels, _resized(reference, size), _REFERENCE, _SCALE)
    page = np.full((height, width, 3), _TILE, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    page[top : top + size[1], left : left + size[0]] = pixels
    return page


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask of another size (width, height), its edge where it was."""
    smooth = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth >= 0.5)


def _outline(pixels: Image, mask: Mask, colour: Colour, thickness: int) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(pixels, contours, -1, colour, thickness, cv2.LINE_AA)


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
