"""Frontal chest X-rays: thicknesses of tissue added up along the beam, then developed.

Outlines use units of about half a thorax: midline at x = 0, lung apices near y = -0.9, domes of
the diaphragm near y = 0.45. The patient's left is on the right, as radiologists view it.
"""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import (
    Image,
    chance,
    expose,
    image_shape,
    pose,
    to_rgb,
    view,
    wear,
    write_text,
)
from salip_ray.models.bundled.phantoms.chest.belly import draw_other_region
from salip_ray.models.bundled.phantoms.chest.film import LEFT, RIGHT, Film
from salip_ray.models.bundled.phantoms.chest.lungs import draw_opacities, draw_vessels, lung_outline
from salip_ray.models.bundled.phantoms.chest.overlays import draw_bones, draw_devices
from salip_ray.models.bundled.phantoms.chest.trunk import draw_abdomen, draw_body, draw_mediastinum
from salip_ray.models.bundled.phantoms.phantom import Structure
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field, Warp
from salip_ray.models.bundled.phantoms.texture import blur, smooth_noise

__all__ = ["draw_chest"]


def draw_chest(
    rng: np.random.Generator, size: int, *, target: bool = True
) -> tuple[Image, tuple[Structure, ...]]:
    """Draw one chest phantom: RGB image [H, W, 3] and its structures.

    Without `target` it is a film of the abdomen or of a limb.
    """
    shape = image_shape(size, rng.uniform(0.85, 1.4))
    canvas = _draw_pose(rng, shape)
    film = Film(canvas, np.zeros(shape, np.float32))
    if not target:
        draw_other_region(rng, film)
        density = film.density + 0.06 * rng.random() * smooth_noise(rng, shape, size * 0.25)
        return _develop(rng, density, film)

    right, left = lung_outline(rng, RIGHT), lung_outline(rng, LEFT)
    lungs = {RIGHT: canvas.fill(right), LEFT: canvas.fill(left)}
    both = np.maximum(lungs[RIGHT], lungs[LEFT])

    body = draw_body(rng, film)
    draw_abdomen(rng, film, body, right, left)
    solid = draw_mediastinum(rng, film)
    # Ill or badly exposed lungs hardly differ from what surrounds them.
    air = rng.uniform(0.1, 0.5)
    for side in (RIGHT, LEFT):
        # Lung is thickest in its middle: part of its darkness fades towards the edges.
        sharp = blur(lungs[side], rng.uniform(0.003, 0.025) * canvas.scale)
        deep = blur(lungs[side], 0.12 * canvas.scale) * sharp
        edge = np.float32(rng.uniform(0.25, 0.9))
        dark = (edge * sharp + (1 - edge) * deep) * np.float32(air * rng.uniform(0.8, 1.2))
        film.density -= dark * (1 - solid)
    draw_vessels(rng, film, both)
    draw_opacities(rng, film, lungs, 1 - 0.8 * solid)
    draw_bones(rng, film, body)
    draw_devices(rng, film)

    film.legend.add("right lung", "organ", lungs[RIGHT])
    film.legend.add("left lung", "organ", lungs[LEFT])
    film.legend.add("lungs", "whole", (lungs[RIGHT] > 0.5) | (lungs[LEFT] > 0.5))
    density = film.density + 0.06 * rng.random() * smooth_noise(rng, shape, size * 0.25)
    return _develop(rng, density, film)


def _draw_pose(rng: np.random.Generator, shape: tuple[int, int]) -> Canvas:
    height, width = shape
    # Lungs span about 1.6 x 1.55 units; from filling the frame to half of it.
    extent = rng.uniform(1.5, 2.1) if chance(rng, 0.75) else rng.uniform(2.1, 2.7)
    stretch = float(np.clip(np.exp(rng.normal(0.02, 0.12)), 0.75, 1.35))
    scale = min(width / stretch**0.5, height * stretch**0.5 * 1.05) / extent
    centre = (
        width * (0.5 + rng.normal(0, 0.03)),
        height * (0.5 + rng.normal(0.02, 0.05)) + 0.1 * scale,
    )
    angle = rng.normal(0, 0.05)
    matrix = pose(centre, scale, angle=angle, stretch=stretch, shear=rng.normal(0, 0.03))
    return Canvas(shape, matrix, Warp.draw(rng, 0.05))


def _develop(
    rng: np.random.Generator, density: Field, film: Film
) -> tuple[Image, tuple[Structure, ...]]:
    shape = density.shape
    shown = view(rng, film.canvas.shape, bars=0.3, tilt=0.15)
    if chance(rng, 0.3):  # the beam's own fall-off
        density = density + np.float32(rng.normal(0, 0.08)) * smooth_noise(
            rng, film.canvas.shape, max(shape) * 0.6
        )
    if chance(rng, 0.4):  # local contrast, as digital systems process it
        coarse = blur(density, film.canvas.scale * rng.uniform(0.15, 0.4))
        density = density + np.float32(rng.uniform(0.2, 1.0)) * (density - coarse)
    image = expose(rng, density, shown, gamma=(-0.2, 0.35), noise=0.035, clip=4.0)
    if chance(rng, 0.08):
        image = 1 - image
    border = 0.0 if chance(rng, 0.9) else rng.uniform(0, 1)
    image[~shown] = np.float32(border)
    picture = (image * 255).astype(np.uint8)
    if chance(rng, 0.6):
        write_text(rng, picture, int(rng.integers(1, 4)))
    return to_rgb(rng, wear(rng, picture)), film.legend.structures(shown)
