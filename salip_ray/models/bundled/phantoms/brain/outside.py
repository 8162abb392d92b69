"""Slices of a head volume without brain: neck, face below the skull base, and scalp above it."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.brain.base import draw_face, face_outline
from salip_ray.models.bundled.phantoms.brain.slice import Slice
from salip_ray.models.bundled.phantoms.shapes import Field, ellipse
from salip_ray.models.bundled.phantoms.texture import blur, fractal_noise


def draw_outside(rng: np.random.Generator, slice_: Slice, where: str | None = None) -> None:
    """Paint a slice below or above the brain: "neck", "face" or "scalp", by default any."""
    where = where or rng.choice(["neck", "face", "scalp"], p=[0.35, 0.4, 0.25])
    if where == "neck":
        _draw_neck(rng, slice_)
    elif where == "face":
        head = face_outline(rng, slice_.canvas)
        draw_face(rng, slice_, head)
        _draw_vertebra(rng, slice_, (0.0, rng.uniform(0.25, 0.45)), rng.uniform(0.8, 1.2))
        slice_.legend.add("head outline", "whole", head)
    else:
        _draw_scalp(rng, slice_)


def _draw_neck(rng: np.random.Generator, slice_: Slice) -> None:
    """Paint skin, muscles, a vertebra with the spinal cord, airway and vessels."""
    canvas = slice_.canvas
    size = rng.uniform(0.5, 0.8)
    neck = canvas.fill(ellipse((0, 0), (size, size * rng.uniform(0.85, 1.2)), rng=rng, wobble=0.05))
    slice_.paint(neck, "fat")
    _draw_muscles(rng, slice_, neck)
    airway = canvas.fill(
        ellipse(
            (0, -size * rng.uniform(0.35, 0.6)),
            (rng.uniform(0.07, 0.18), rng.uniform(0.06, 0.14)),
            rng=rng,
            wobble=0.1,
        )
    )
    slice_.paint(airway, "air", rng.uniform(0.7, 1.0))
    _draw_vertebra(rng, slice_, (0.0, size * rng.uniform(0.0, 0.3)), rng.uniform(0.8, 1.3))
    for side in (-1, 1):
        radius = rng.uniform(0.04, 0.08)
        vessel = canvas.fill(
            ellipse((side * rng.uniform(0.25, 0.35), -0.1 * size), (radius, radius), rng=rng)
        )
        slice_.paint(vessel, "air" if chance(rng, 0.5) else "fluid")
    slice_.legend.add("head outline", "whole", neck)


def _draw_muscles(rng: np.random.Generator, slice_: Slice, outline: Field) -> None:
    """Fill an outline with muscle, divided by bands of fat."""
    shape, scale = slice_.canvas.shape, slice_.canvas.scale
    inner = np.clip(blur(outline, 0.06 * scale) * 4 - 2.6, 0, 1)
    bands = fractal_noise(rng, shape, scale * rng.uniform(0.1, 0.2), 2)
    fat, muscle = slice_.tissue["fat"], slice_.tissue["muscle"]
    value = np.where(np.abs(bands) < rng.uniform(0.1, 0.3), fat, muscle).astype(np.float32)
    slice_.paint_field(inner, blur(value, 0.015 * scale))


def _draw_vertebra(
    rng: np.random.Generator, slice_: Slice, centre: tuple[float, float], size: float
) -> None:
    """Paint a vertebral body, its arch, and the canal with the spinal cord."""
    canvas = slice_.canvas
    x, y = centre
    body = ellipse((x, y), (0.2 * size, 0.15 * size), rng=rng, wobble=0.06)
    arch = ellipse((x, y + 0.25 * size), (0.2 * size, 0.17 * size), rng=rng, wobble=0.06)
    slice_.paint(canvas.fill(body, arch), "bone")
    marrow = canvas.fill(ellipse((x, y), (0.16 * size, 0.11 * size)))
    slice_.paint(marrow, "marrow", rng.uniform(0.4, 1.0))
    canal = canvas.fill(ellipse((x, y + 0.25 * size), (0.13 * size, 0.1 * size)))
    slice_.paint(canal, "fluid")
    cord = canvas.fill(ellipse((x, y + 0.25 * size), (0.07 * size, 0.05 * size)))
    slice_.paint(cord, "white", rng.uniform(0.6, 1.0))


def _draw_scalp(rng: np.random.Generator, slice_: Slice) -> None:
    """Paint the top of the head: a disc of fat, perhaps with bone cut at a slant."""
    canvas = slice_.canvas
    size = rng.uniform(0.12, 0.5)
    radii = (size, size * rng.uniform(1.0, 1.3))
    disc = canvas.fill(ellipse((0, 0), radii, rng=rng, wobble=0.06))
    slice_.paint(disc, "fat")
    if chance(rng, 0.6):
        share = rng.uniform(0.4, 0.75)
        inner = ellipse((0, 0), (radii[0] * share, radii[1] * share), rng=rng, wobble=0.06)
        slice_.paint(canvas.fill(inner), "bone")
        if chance(rng, 0.5):
            share *= rng.uniform(0.4, 0.8)
            core = ellipse((0, 0), (radii[0] * share, radii[1] * share), rng=rng, wobble=0.08)
            slice_.paint(canvas.fill(core), "marrow", rng.uniform(0.3, 1.0))
    slice_.legend.add("head outline", "whole", disc)
