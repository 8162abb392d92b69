"""Soft tissue: body and arms, abdomen, heart and great vessels."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.chest.film import LEFT, RIGHT, Film
from salip_ray.models.bundled.phantoms.chest.lungs import FLOOR_POINTS
from salip_ray.models.bundled.phantoms.shapes import Field, Points, ellipse, jitter, smooth_curve
from salip_ray.models.bundled.phantoms.texture import blur


def draw_body(rng: np.random.Generator, film: Film) -> Field:
    """Draw trunk, neck, arms and breasts; return the coverage of the trunk."""
    side = rng.uniform(0.98, 1.25)
    shoulder = rng.uniform(-0.95, -0.7)
    raised = rng.uniform(0, 0.35)
    half = [
        (0.24, -1.9),
        (0.25, -1.25),
        (0.45, shoulder - 0.25),
        (side + 0.1, shoulder - raised),
        (side + 0.02, shoulder + 0.5),
        (side - 0.02, 0.0),
        (side, 0.6),
        (side + rng.uniform(-0.1, 0.15), 2.2),
    ]
    right = jitter(half, rng, 0.02) * (RIGHT, 1.0)
    left = jitter(half, rng, 0.02) * (LEFT, 1.0)
    outline = np.vstack([smooth_curve(right, closed=False), smooth_curve(left, closed=False)[::-1]])
    trunk = film.canvas.fill(outline)
    tissue = rng.uniform(0.45, 0.7)
    # Thin at the skin: a blurred outline, cut off at the skin itself.
    thickness = np.minimum(blur(trunk, 0.12 * film.canvas.scale) * 1.2, 1.0) * trunk
    film.density += thickness * np.float32(tissue)
    _, y = film.canvas.grid()
    film.density *= 1 - np.float32(rng.uniform(0, 0.35)) * np.clip(-y - np.float32(0.3), 0, 1)

    everything = trunk
    if chance(rng, 0.7):
        out = rng.uniform(0.05, 0.6)  # how far the arms are held off the trunk
        for sign in (RIGHT, LEFT):
            start = (sign * (side + 0.05), shoulder + 0.1)
            arm_line = smooth_curve(
                jitter(
                    [
                        start,
                        (sign * (side + 0.2 + out * 0.4), shoulder + 0.6),
                        (sign * (side + 0.25 + out), shoulder + 1.5),
                    ],
                    rng,
                    0.03,
                ),
                closed=False,
            )
            arm = film.canvas.stroke(arm_line, rng.uniform(0.3, 0.5))
            film.density = np.maximum(
                film.density, blur(arm, 0.04 * film.canvas.scale) * np.float32(tissue * 0.75)
            )
            bone = film.canvas.stroke(arm_line, rng.uniform(0.09, 0.15))
            film.add(bone, rng.uniform(0.1, 0.3), 0.01)
            film.legend.add("arm", "organ", arm * (1 - trunk))
            everything = np.maximum(everything, arm)
    if chance(rng, 0.4):  # breasts
        amount, low = rng.uniform(0.03, 0.14), rng.uniform(0.25, 0.5)
        for sign in (RIGHT, LEFT):
            radii = (rng.uniform(0.28, 0.42), rng.uniform(0.28, 0.42))
            breast = film.canvas.fill(ellipse((sign * 0.55, low), radii, rng=rng, wobble=0.05))
            film.add(breast, amount, 0.02)
    film.legend.add("body outline", "whole", everything)
    return trunk


def draw_abdomen(
    rng: np.random.Generator, film: Film, body: Field, right: Points, left: Points
) -> None:
    """Draw liver and spleen under the diaphragm, and the gas in stomach and bowel."""
    domes = np.vstack([right[-FLOOR_POINTS:][::-1], left[-FLOOR_POINTS:]])
    low = max(left[-1, 1], right[-1, 1]) + 0.4
    corners = np.array([(1.6, low), (1.6, 2.6), (-1.6, 2.6), (-1.6, low)])
    below = film.canvas.fill(np.vstack([domes, corners])) * body
    film.add(below, rng.uniform(0.02, 0.3), rng.uniform(0.005, 0.08))
    film.legend.add("abdomen", "organ", below)
    base = float(left[-FLOOR_POINTS:, 1].mean())
    if chance(rng, 0.55):
        centre = (rng.uniform(0.25, 0.6), base + rng.uniform(0.12, 0.3))
        radii = (rng.uniform(0.08, 0.25), rng.uniform(0.05, 0.13))
        bubble = film.canvas.fill(ellipse(centre, radii, rng.normal(0, 0.3), rng=rng, wobble=0.12))
        film.add(bubble, -rng.uniform(0.1, 0.4), 0.01)
        film.legend.add("stomach gas", "part", bubble)
    for _ in range(rng.integers(0, 4) if chance(rng, 0.35) else 0):
        centre = (rng.uniform(-0.7, 0.7), base + rng.uniform(0.3, 0.8))
        loop = film.canvas.fill(
            ellipse(centre, (rng.uniform(0.08, 0.25), rng.uniform(0.05, 0.1)), rng.normal(0, 0.8))
        )
        film.add(loop, -rng.uniform(0.08, 0.3), 0.015)
        film.legend.add("bowel gas", "part", loop)


def draw_mediastinum(rng: np.random.Generator, film: Film) -> Field:
    """Draw great vessels, heart, spine and trachea.

    Returns how much of the lung's air their bulk displaces, 0..1 [H, W].
    """
    wide = rng.uniform(0.13, 0.24)
    knob = rng.uniform(0.02, 0.14)  # the aortic one; language: ok
    band = smooth_curve(
        jitter(
            [
                (-wide, -1.3),
                (-wide * 0.9, -0.6),
                (-wide, 0.0),
                (-wide, 1.3),
                (wide, 1.3),
                (wide, 0.0),
                (wide + knob * 0.3, -0.22),
                (wide + knob, -0.4),
                (wide * 0.9, -0.6),
                (wide, -1.3),
            ],
            rng,
            0.012,
        )
    )
    soft = rng.uniform(0.015, 0.05)
    middle = blur(film.canvas.fill(band), soft * film.canvas.scale)

    swell = rng.uniform(0.85, 1.35)
    apex_x, apex_y = 0.48 * swell, rng.uniform(0.38, 0.55)
    heart_line = smooth_curve(
        jitter(
            [
                (-0.1, -0.2),
                (-0.2 * swell, 0.05),
                (-0.25 * swell, 0.25),
                (-0.15, apex_y + 0.05),
                (0.2, apex_y + 0.1),
                (apex_x, apex_y),
                (apex_x * 0.92, apex_y - 0.18),
                (0.3 * swell, 0.02),
                (0.19, -0.16),
            ],
            rng,
            0.02,
        )
    )
    heart = film.canvas.fill(heart_line)
    bulk = np.maximum(middle, blur(heart, rng.uniform(0.005, 0.03) * film.canvas.scale))
    film.density += bulk * np.float32(rng.uniform(0.02, 0.15))
    film.legend.add("heart", "organ", heart)

    lean = rng.normal(0, 0.03, 5)
    axis = smooth_curve(np.stack([lean, np.linspace(-1.6, 1.8, 5)], axis=1), closed=False)
    spine = film.canvas.stroke(axis, rng.uniform(0.16, 0.26))
    film.add(spine, rng.uniform(0.0, 0.14), 0.02)
    visible = rng.uniform(0.0, 0.06) if chance(rng, 0.5) else 0.0
    spacing = rng.uniform(0.13, 0.18)
    for y in np.arange(-1.5, 1.5, spacing):  # discs between the vertebrae, and spinous processes
        disc = film.canvas.stroke(np.array([[-0.1, y], [0.0, y + 0.005], [0.1, y]]), spacing * 0.25)
        film.add(disc, -visible, 0.01)
    film.legend.add("spine", "organ", spine)

    trachea = film.canvas.stroke(
        smooth_curve(
            jitter([(0, -1.5), (0.0, -1.0), (-0.01, -0.6), (-0.02, -0.42)], rng, 0.015),
            closed=False,
        ),
        rng.uniform(0.07, 0.12) * np.linspace(1.0, 0.6, 24),
    )
    film.add(trachea, -rng.uniform(0.02, 0.14), rng.uniform(0.01, 0.04))
    film.legend.add("trachea", "part", trachea)
    return bulk * np.float32(rng.uniform(0.55, 1.0))
