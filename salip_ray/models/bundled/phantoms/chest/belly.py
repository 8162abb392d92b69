"""Films of another region: the abdomen, or a limb. They show no lung."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.chest.film import LEFT, RIGHT, Film
from salip_ray.models.bundled.phantoms.shapes import ellipse, jitter, smooth_curve
from salip_ray.models.bundled.phantoms.texture import blur


def draw_other_region(rng: np.random.Generator, film: Film) -> None:
    """Draw an abdomen or a limb."""
    if chance(rng, 0.65):
        _draw_belly(rng, film)
    else:
        _draw_limb(rng, film)


def _draw_belly(rng: np.random.Generator, film: Film) -> None:
    """Draw trunk, spine, pelvis, liver and kidneys, and gas in the bowel."""
    canvas = film.canvas
    side = rng.uniform(0.75, 1.15)
    half = [(side, -2.0), (side - 0.05, -0.5), (side - 0.08, 0.2), (side, 0.9), (side, 2.0)]
    right = smooth_curve(jitter(half, rng, 0.02) * (RIGHT, 1.0), closed=False)
    left = smooth_curve(jitter(half, rng, 0.02) * (LEFT, 1.0), closed=False)
    trunk = canvas.fill(np.vstack([right, left[::-1]]))
    thickness = np.minimum(blur(trunk, 0.12 * canvas.scale) * 1.2, 1.0) * trunk
    film.density += thickness * np.float32(rng.uniform(0.45, 0.7))
    film.legend.add("body outline", "whole", trunk)

    spine = canvas.stroke(np.array([[0, -2.0], [rng.normal(0, 0.03), 0], [0, 0.75]]), 0.24)
    film.add(spine, rng.uniform(0.05, 0.15), 0.02)
    film.legend.add("spine", "organ", spine)
    spacing = rng.uniform(0.2, 0.28)
    for y in np.arange(-1.4, 0.7, spacing):
        disc = canvas.stroke(np.array([[-0.12, y], [0.0, y], [0.12, y]]), spacing * 0.2)
        film.add(disc, -rng.uniform(0.0, 0.06), 0.01)
    bone = rng.uniform(0.05, 0.16)
    for sign in (RIGHT, LEFT):
        wing = ellipse(
            (sign * 0.5, 0.75), (0.3, rng.uniform(0.32, 0.45)), sign * 0.5, rng=rng, wobble=0.05
        )
        film.add(canvas.fill(wing), bone, 0.01)
        kidney = ellipse((sign * 0.35, -0.45), (0.14, 0.24), sign * -0.2, rng=rng, wobble=0.05)
        film.add(canvas.fill(kidney), rng.uniform(0.0, 0.05), 0.02)
    liver = canvas.fill(ellipse((-0.45, -0.9), (0.5, 0.4), 0.4, rng=rng, wobble=0.08)) * trunk
    film.add(liver, rng.uniform(0.02, 0.12), 0.03)
    film.legend.add("abdomen", "organ", trunk)
    for _ in range(rng.integers(2, 12)):
        centre = (rng.uniform(-0.7, 0.7), rng.uniform(-0.9, 0.9))
        radii = (rng.uniform(0.06, 0.25), rng.uniform(0.05, 0.13))
        loop = canvas.fill(ellipse(centre, radii, rng.uniform(0, np.pi), rng=rng, wobble=0.15))
        film.add(loop * trunk, -rng.uniform(0.08, 0.35), 0.015)
        film.legend.add("bowel gas", "part", loop * trunk)


def _draw_limb(rng: np.random.Generator, film: Film) -> None:
    """Draw soft tissue around one to five long bones."""
    canvas = film.canvas
    bones = int(rng.choice([1, 2, 5], p=[0.35, 0.35, 0.3]))
    spread = rng.uniform(0.25, 0.4)
    offsets = (np.arange(bones) - (bones - 1) / 2) * spread
    fan = rng.uniform(0.0, 0.3) if bones > 1 else 0.0
    for x in offsets:
        line = smooth_curve(
            jitter([(x * (1 - fan), 1.9), (x, 0.4), (x, -0.4), (x * (1 + fan), -1.9)], rng, 0.02),
            closed=False,
        )
        flesh = canvas.stroke(line, rng.uniform(0.35, 0.6) * (1.6 if bones < 3 else 0.7))
        thickness = blur(flesh, 0.05 * canvas.scale) * np.float32(rng.uniform(0.25, 0.45))
        film.density = np.maximum(film.density, thickness)
        film.legend.add("arm", "organ", flesh)
    for x in offsets:
        line = np.array([(x * (1 - fan), 1.9), (x, 0.4), (x, -0.4), (x * (1 + fan), -1.9)])
        width = rng.uniform(0.1, 0.18)
        film.add(canvas.stroke(line, width), rng.uniform(0.1, 0.35), 0.01)
        film.add(canvas.stroke(line, width * 0.4), -rng.uniform(0.0, 0.15), 0.01)
