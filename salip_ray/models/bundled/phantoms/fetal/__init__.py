"""Fetal heads as an ultrasound machine shows them: a fan of speckle with a broken bright ring."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import (
    Image,
    chance,
    expose,
    image_shape,
    pose,
    to_rgb,
    wear,
    write_text,
)
from salip_ray.models.bundled.phantoms.fetal.elsewhere import draw_elsewhere
from salip_ray.models.bundled.phantoms.fetal.fan import draw_fan, fan_speckle
from salip_ray.models.bundled.phantoms.fetal.head import (
    draw_inside,
    draw_pose,
    draw_skull,
    outline_of,
    ring_mask,
)
from salip_ray.models.bundled.phantoms.fetal.womb import draw_surroundings, shade
from salip_ray.models.bundled.phantoms.phantom import Legend, Structure
from salip_ray.models.bundled.phantoms.shapes import Canvas

__all__ = ["draw_fetal"]


def draw_fetal(
    rng: np.random.Generator, size: int, *, target: bool = True
) -> tuple[Image, tuple[Structure, ...]]:
    """Draw one ultrasound phantom: RGB image [H, W, 3] and its structures.

    Without `target` it is a plane through body, limbs and womb.
    """
    aspect = 1.48 if chance(rng, 0.6) else rng.uniform(0.95, 1.6)
    shape = image_shape(size, aspect)
    canvas = Canvas(shape, pose((0, 0), 1.0))  # outlines here are in pixels
    fan = draw_fan(rng, canvas)
    head = draw_pose(rng, shape)
    legend = Legend()

    echo = draw_surroundings(rng, canvas, fan, head, legend)
    if target:
        inside = canvas.fill(outline_of(head))
        echo = echo * (1 - inside) + inside * draw_inside(rng, canvas, head, legend)
        ring = draw_skull(rng, fan, head)
        echo = shade(rng, echo, fan, head, legend) + ring
        legend.add("fetal head", "organ", inside)
        legend.add("skull ring", "part", ring_mask(head))
    else:
        echo = draw_elsewhere(rng, canvas, fan, echo, legend)
        echo = shade(rng, echo, fan, head, legend)

    noise = fan_speckle(rng, fan)
    strength = np.float32(rng.uniform(0.3, 0.8))
    echo = np.maximum(echo, 0) * (1 - strength + strength * noise)
    # Log compression makes faint echoes visible next to bone.
    echo = np.log1p(echo * np.float32(rng.uniform(0.8, 8)))

    image = expose(rng, echo, fan.shown, gamma=(-0.05, 0.25), noise=0.03, clip=0.6)
    if chance(rng, 0.04):
        image = 1 - image
    image[~fan.shown] = 0
    picture = (image * 255).astype(np.uint8)
    _mark(rng, picture)
    legend.add("fan", "whole", fan.shown)
    # The reference outline continues outside the sector if its edge cuts the head.
    everywhere = np.ones(shape, np.bool_)
    return to_rgb(rng, wear(rng, picture)), legend.structures(everywhere)


def _mark(rng: np.random.Generator, picture: Image) -> None:
    """Add the marks of the scanner's screen and remove what anonymising removes, in place."""
    height, width = picture.shape
    if chance(rng, 0.6):  # grey scale bar
        top, bottom = int(height * rng.uniform(0.02, 0.1)), int(height * rng.uniform(0.2, 0.5))
        left = int(width * rng.uniform(0.0, 0.04))
        ramp = np.linspace(255, 0, bottom - top).astype(np.uint8)
        picture[top:bottom, left : left + max(1, width // 120)] = ramp[:, None]
    if chance(rng, 0.75):
        picture[int(height * rng.uniform(0.75, 0.95)) :, int(width * rng.uniform(0.6, 0.85)) :] = 0
    if chance(rng, 0.5):
        picture[: int(height * rng.uniform(0.03, 0.25)), int(width * rng.uniform(0.8, 0.97)) :] = 0
    if chance(rng, 0.3):
        write_text(rng, picture, int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 3) if chance(rng, 0.15) else 0):  # callipers
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        picture[y, max(0, x - 3) : x + 4] = 255
        picture[max(0, y - 3) : y + 4, x] = 255
