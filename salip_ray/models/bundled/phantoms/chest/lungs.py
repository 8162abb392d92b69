"""Lung fields: their outline, their vessels, and the diseases that whiten them."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import Image, chance
from salip_ray.models.bundled.phantoms.chest.film import LEFT, RIGHT, Film
from salip_ray.models.bundled.phantoms.shapes import (
    Canvas,
    Field,
    Points,
    coverage,
    ellipse,
    jitter,
    smooth_curve,
)
from salip_ray.models.bundled.phantoms.texture import blur, fractal_noise, smooth_noise

# A lung's outline ends with its floor, from the heart to the costophrenic angle.
FLOOR_POINTS = 32


def lung_outline(rng: np.random.Generator, side: float) -> Points:
    """Return the closed outline of one lung, with what lies behind heart, vessels and opacities."""
    apex = rng.uniform(-0.98, -0.78)
    base = rng.uniform(0.35, 0.6) + (0.05 if side == LEFT else 0.0)
    inner = rng.uniform(0.04, 0.12)
    width = rng.uniform(0.72, 0.9)
    notch = rng.uniform(0, 0.05) if side == LEFT else rng.uniform(0, 0.02)  # the aortic arch
    corner = base + rng.uniform(0.02, 0.3)  # costophrenic angle, blunt when full of fluid
    up = jitter(
        [
            (width, corner),
            (width + 0.03, 0.25),
            (width - 0.03, -0.1),
            (width - 0.13, -0.45),
            (width - 0.27, -0.72),
            (0.32, apex),
            (inner + rng.uniform(0.0, 0.06), apex * 0.85),
            (inner + 0.01, -0.55),
            (inner + notch, -0.38),
            (inner + 0.04, -0.15),
            (inner + rng.uniform(0.0, 0.1), 0.15),
            (inner + rng.uniform(0.0, 0.14), base + rng.uniform(-0.05, 0.12)),
        ],
        rng,
        0.014,
    )
    dome = jitter(
        [
            up[-1],
            (0.33, base - rng.uniform(0.0, 0.05)),
            (0.5, base + rng.uniform(-0.04, 0.02)),
            (0.66, base + 0.3 * (corner - base)),
            up[0],
        ],
        rng,
        0.008,
    )
    dome[0], dome[-1] = up[-1], up[0]
    lateral = smooth_curve(up, closed=False)
    floor = smooth_curve(dome, closed=False)
    return np.vstack([lateral, floor]) * (side, 1.0)


def draw_vessels(rng: np.random.Generator, film: Film, lungs: Field) -> None:
    """Draw hila, and vessels that branch from them and taper outwards."""
    sheet = np.zeros(film.canvas.shape, np.uint8)
    width = rng.uniform(0.018, 0.04)
    for side in (RIGHT, LEFT):
        root = (side * rng.uniform(0.18, 0.26), rng.uniform(-0.22, -0.05))
        radii = (rng.uniform(0.06, 0.12), rng.uniform(0.1, 0.2))
        hilum = film.canvas.fill(ellipse(root, radii, side * 0.3, rng=rng, wobble=0.15))
        film.add(hilum, rng.uniform(0.0, 0.15), 0.03)
        film.legend.add("hilum", "part", hilum)
        count = int(rng.integers(9, 18))
        _branch(
            rng,
            film.canvas,
            sheet,
            np.tile(root, (count, 1)),
            rng.uniform(-1.35, 1.5, count),
            side,
            rng.uniform(0.25, 0.45, count),
            width,
        )
    vessels = blur(coverage(sheet), 0.005 * film.canvas.scale)
    faint = 1 + 0.5 * smooth_noise(rng, film.canvas.shape, 0.15 * film.canvas.scale)
    film.density += vessels * lungs * np.clip(faint, 0, 2) * np.float32(rng.uniform(0.01, 0.09))


def _branch(
    rng: np.random.Generator,
    canvas: Canvas,
    sheet: Image,
    start: Points,
    direction: Points,
    side: float,
    length: Points,
    width: float,
) -> None:
    """Draw vessels [N] into `sheet` and, while they are thick enough, two more from each end."""
    turns = direction + np.cumsum(rng.normal(0, 0.15, (4, len(direction))), axis=0)
    steps = np.stack([side * np.cos(turns), np.sin(turns)], axis=-1) * length[:, None] * 0.2
    curves = np.swapaxes(start + np.cumsum(np.concatenate([0 * steps[:1], steps]), axis=0), 0, 1)
    canvas.stroke_onto(sheet, curves, np.linspace(width, width * 0.6, 5))
    if width > 0.008:
        fork = rng.uniform(0.2, 0.6, len(direction))
        ends, onward = np.repeat(curves[:, -1], 2, axis=0), np.repeat(turns[-1], 2)
        onward = onward + np.stack([-fork, 0.7 * fork], axis=1).ravel()
        length = np.repeat(length, 2) * rng.uniform(0.6, 1.0, 2 * len(length))
        _branch(rng, canvas, sheet, ends, onward, side, length, width * 0.6)


def draw_opacities(
    rng: np.random.Generator, film: Film, lungs: dict[float, Field], air: Field
) -> None:
    """Draw pneumonia, oedema or effusion: white lung, from a patch to all of it.

    `air` [H, W] is the share of the beam that meets air: none is left to turn white elsewhere.
    """
    shape, scale = film.canvas.shape, film.canvas.scale
    both = np.maximum(lungs[RIGHT], lungs[LEFT]) * air
    if chance(rng, 0.45):  # fine or coarse streaks everywhere
        grain = fractal_noise(rng, shape, scale * rng.uniform(0.05, 0.2), 3)
        film.density += both * grain * np.float32(rng.uniform(0.01, 0.06))
    if chance(rng, 0.35):  # haze, thicker towards the base
        _, y = film.canvas.grid()
        weight = np.clip(np.float32(0.5) + y * np.float32(rng.uniform(-0.2, 0.8)), 0, 1)
        film.density += both * weight * np.float32(rng.uniform(0.03, 0.35))
    for _ in range(rng.integers(1, 5) if chance(rng, 0.5) else 0):
        side = RIGHT if chance(rng, 0.5) else LEFT
        centre = (side * rng.uniform(0.25, 0.75), rng.uniform(-0.7, 0.5))
        radii = (rng.uniform(0.1, 0.4), rng.uniform(0.08, 0.35))
        patch = film.canvas.fill(ellipse(centre, radii, rng.normal(0, 0.5), rng=rng, wobble=0.2))
        soft = blur(patch, scale * rng.uniform(0.02, 0.12)) * lungs[side]
        cloud = np.clip(0.8 + 0.4 * fractal_noise(rng, shape, scale * 0.15, 3), 0, 2)
        film.density += soft * air * cloud * np.float32(rng.uniform(0.05, 0.4))
        film.legend.add("opacity", "part", patch * lungs[side])
    if chance(rng, 0.12):  # effusion, level at the base of one lung
        side = RIGHT if chance(rng, 0.5) else LEFT
        x, y = film.canvas.grid()
        level = np.float32(rng.uniform(0.0, 0.45)) - x * np.float32(side * rng.uniform(-0.1, 0.4))
        fluid = np.clip((y - level) * 8, 0, 1) * lungs[side]
        film.density += fluid * air * np.float32(rng.uniform(0.15, 0.5))
        film.legend.add("opacity", "part", fluid)
