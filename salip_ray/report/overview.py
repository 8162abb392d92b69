"""One picture of many labelled images, each next to its labels by several methods.

A mask is drawn as a tint with its outline, the reference as a light line above it, and their Dice
below. Everything is drawn at twice its size and reduced at the end, for smooth edges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from salip_ray.report.canvas import (
    CLASS_COLOURS,
    INK,
    MARGIN,
    SCALE,
    SOFT_INK,
    Canvas,
    Colour,
    fitted,
    fitted_mask,
    outlined,
    tinted,
)
from salip_ray.schema import Image, Mask
from salip_ray.wording import counted

_REFERENCE: Colour = (255, 214, 64)
_METHOD_COLOURS: Mapping[str, Colour] = {
    "unprompted": (240, 98, 90),
    "cascade": (38, 190, 166),
    "gt_sam": (90, 150, 245),
}
_OTHER_COLOUR: Colour = (190, 120, 230)


_GAP, _PAIR_GAP = 6, 26
_HEADER, _FOOTER, _CAPTION, _BAND_GAP = 70, 28, 28, 24
_NOTES_WIDTH = 232


@dataclass(frozen=True)
class Panel:
    """One image of an overview.

    Attributes:
        image: uint8 RGB [H, W, 3].
        references: bool [H, W], one per class of the band.
        masks: of each method to show, in order: bool [H, W], one per class of the band; None if the
            method did not label the class.
        dice: the Dice of each method on this image, mean over the classes.
    """

    image: Image
    references: Sequence[Mask]
    masks: Mapping[str, Sequence[Mask | None]]
    dice: Mapping[str, float]


@dataclass(frozen=True)
class Band:
    """The images of one task, and the text next to them.

    Attributes:
        classes: the classes of the task.
        subtitle: what the images are, in a few words.
        panels: the images; all bands show the same methods.
        mean_dice: mean Dice of each method over all images and classes, not only those shown.
        n: number of images.
    """

    classes: Sequence[str]
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
    """Draw bands of labelled images below each other, and write them as a PNG.

    Args:
        bands: the bands; each takes as many lines as its panels need.
        path: the file to write.
        method_names: the methods to show, in order, and their names for people.
        heading: the line at the top.
        footnote: a line at the bottom, next to the legend.
        tile: width and height of one picture, in pixels; images are fitted into it.
        columns: panels per line; each is the image and one picture per method.
    """
    methods = [name for name in method_names if any(name in band.mean_dice for band in bands)]
    tile_w, tile_h = tile
    panel_w = (1 + len(methods)) * (tile_w + _GAP) - _GAP
    lines = [math.ceil(len(band.panels) / columns) for band in bands]
    line_h = tile_h + _CAPTION
    width = 2 * MARGIN + _NOTES_WIDTH + columns * (panel_w + _PAIR_GAP) - _PAIR_GAP
    height = _HEADER + _FOOTER + MARGIN + sum(n * line_h for n in lines)
    height += _BAND_GAP * len(bands)
    canvas = Canvas(width, height)
    canvas.text(MARGIN, 40, heading, 26, INK)
    top = _HEADER
    for band, n_lines in zip(bands, lines, strict=True):
        canvas.rule(MARGIN, top - _BAND_GAP // 2 + 2, width - MARGIN)
        _draw_notes(canvas, band, methods, method_names, top + 8)
        for index, panel in enumerate(band.panels):
            line, column = divmod(index, columns)
            left = MARGIN + _NOTES_WIDTH + column * (panel_w + _PAIR_GAP)
            _draw_panel(canvas, panel, methods, method_names, left, top + 8 + line * line_h, tile)
        top += n_lines * line_h + _BAND_GAP
    _draw_legend(canvas, footnote, top + 26)
    canvas.save(path)


def _draw_notes(
    canvas: Canvas,
    band: Band,
    methods: Sequence[str],
    method_names: Mapping[str, str],
    top: float,
) -> None:
    canvas.text(MARGIN, top + 20, ", ".join(band.classes), 24, INK)
    canvas.text(MARGIN, top + 43, band.subtitle, 15, SOFT_INK)
    canvas.text(MARGIN, top + 82, f"mean Dice, {counted(band.n, 'image')}", 15, SOFT_INK)
    for line, method in enumerate(methods):
        y = top + 108 + 25 * line
        if not _in_class_colours(method, len(band.classes)):
            canvas.swatch(MARGIN, y - 5, _METHOD_COLOURS.get(method, _OTHER_COLOUR))
        canvas.text(MARGIN + 22, y, method_names[method], 16, INK)
        figure = _figure(band.mean_dice.get(method, math.nan))
        canvas.text(MARGIN + _NOTES_WIDTH - 30, y, figure, 16, INK, anchor="rs")
    if len(band.classes) > 1:
        x, y = float(MARGIN), top + 116 + 25 * len(methods)
        for index, name in enumerate(band.classes):
            canvas.swatch(x, y - 5, _class_colour(index))
            x += 21 + canvas.text(x + 21, y, name, 15, SOFT_INK) + 18


def _in_class_colours(method: str, n_classes: int) -> bool:
    """Return whether the masks of a method have the colours of their classes."""
    return n_classes > 1 and method != "unprompted"


def _class_colour(index: int) -> Colour:
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def _draw_panel(
    canvas: Canvas,
    panel: Panel,
    methods: Sequence[str],
    method_names: Mapping[str, str],
    left: float,
    top: float,
    tile: tuple[int, int],
) -> None:
    width, height = tile
    canvas.picture(left, top, fitted(panel.image, tile))
    canvas.text(left + 1, top + height + 18, "input", 14.5, SOFT_INK)
    for column, method in enumerate(methods, start=1):
        x = left + column * (width + _GAP)
        masks = _coloured(panel.masks.get(method, ()), method)
        canvas.picture(x, top, _marked(panel.image, tile, masks, panel.references))
        canvas.text(x + 1, top + height + 18, method_names[method], 14.5, SOFT_INK)
        figure = _figure(panel.dice.get(method, math.nan))
        canvas.text(x + width - 1, top + height + 18, figure, 14.5, INK, anchor="rs")


def _draw_legend(canvas: Canvas, footnote: str, baseline: float) -> None:
    canvas.swatch(MARGIN, baseline - 5, _REFERENCE, filled=False)
    canvas.text(MARGIN + 21, baseline, "reference outline", 15, SOFT_INK)
    if footnote:
        right = canvas.size[0] - MARGIN
        canvas.text(right, baseline, footnote, 15, SOFT_INK, anchor="rs")


def _coloured(masks: Sequence[Mask | None], method: str) -> list[tuple[Mask, Colour]]:
    """Return the masks to draw, in the colours of their classes if the method tells them apart."""
    colours = [_METHOD_COLOURS.get(method, _OTHER_COLOUR)] * len(masks)
    if _in_class_colours(method, len(masks)):
        colours = [_class_colour(index) for index in range(len(masks))]
    drawn = zip(masks, colours, strict=True)
    return [(mask, colour) for mask, colour in drawn if mask is not None and mask.any()]


def _marked(
    image: Image,
    tile: tuple[int, int],
    masks: Sequence[tuple[Mask, Colour]],
    references: Sequence[Mask],
) -> Image:
    """Return the image fitted into a tile, with masks and references, at the drawing scale."""
    pixels = fitted(image, tile)
    for mask, colour in masks:
        inside = fitted_mask(mask, tile)
        tinted(pixels, inside, colour)
        outlined(pixels, inside, colour, 2 * SCALE)
    for reference in references:
        if reference.any():
            outlined(pixels, fitted_mask(reference, tile), _REFERENCE, SCALE)
    return pixels


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
