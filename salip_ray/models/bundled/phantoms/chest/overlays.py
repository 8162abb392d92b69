"""Bones, leads and tubes that are projected over the lungs."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.chest.film import LEFT, RIGHT, Film
from salip_ray.models.bundled.phantoms.shapes import Field, coverage, ellipse, jitter, smooth_curve


def draw_bones(rng: np.random.Generator, film: Film, body: Field) -> None:
    """Draw ribs (brighter at their edges), clavicles and shoulder blades."""
    canvas = film.canvas
    amount = rng.uniform(0.02, 0.13)
    width = rng.uniform(0.045, 0.075)
    spacing = rng.uniform(0.15, 0.2)
    tilt = rng.uniform(0.25, 0.6)
    wide = rng.uniform(0.86, 0.98)
    sheet = np.zeros(canvas.shape, np.uint8)
    hollow = np.zeros(canvas.shape, np.uint8)
    total = np.zeros(canvas.shape, np.float32)
    ribs = [(side, number) for side in (RIGHT, LEFT) for number in range(10)]
    for side, number in ribs:
        y = -0.98 + number * spacing
        reach = wide * min(1.0, 0.45 + 0.13 * number)
        arc = smooth_curve(
            jitter(
                [
                    (side * 0.1, y + 0.02),
                    (side * reach * 0.5, y - 0.03),
                    (side * reach * 0.88, y + tilt * 0.35),
                    (side * reach, y + tilt * 0.75),
                ],
                rng,
                0.006,
            ),
            closed=False,
        )
        sheet[:] = 0
        canvas.stroke_onto(sheet, arc, width)
        canvas.stroke_onto(hollow, arc, width * 0.45)
        rib = coverage(sheet)
        total += rib
        film.legend.add("rib", "part", rib)
    if chance(rng, 0.6):  # front ends, fainter and falling the other way
        sheet[:] = 0
        drop = rng.uniform(0.2, 0.4)
        for side, number in ribs[:7] + ribs[10:17]:
            y = -0.6 + number * spacing
            front = np.array(
                [(side * wide, y), (side * 0.65, y + drop * 0.7), (side * 0.3, y + drop)]
            )
            canvas.stroke_onto(sheet, smooth_curve(front, closed=False), width, 110)
        total += coverage(sheet)
    bone = total - np.float32(rng.uniform(0.1, 0.6)) * coverage(hollow)
    film.add(bone * body, amount, 0.006)

    amount = rng.uniform(0.03, 0.15)
    height = rng.uniform(-0.85, -0.68)
    for side in (RIGHT, LEFT):
        rise = rng.uniform(-0.12, 0.22)
        clavicle = canvas.stroke(
            smooth_curve(
                jitter(
                    [
                        (side * 0.07, height + 0.06),
                        (side * 0.3, height + 0.05),
                        (side * 0.6, height - 0.02 - rise * 0.6),
                        (side * 0.9, height - rise),
                    ],
                    rng,
                    0.012,
                ),
                closed=False,
            ),
            rng.uniform(0.05, 0.085) * np.linspace(1.15, 0.75, 24),
        )
        film.add(clavicle, amount, rng.uniform(0.004, 0.02))
        film.legend.add("clavicle", "part", clavicle)
        if chance(rng, 0.7):
            blade = canvas.fill(
                smooth_curve(
                    jitter(
                        [
                            (side * 0.62, -0.55),
                            (side * 1.0, -0.72),
                            (side * 0.98, -0.45),
                            (side * 0.78, 0.1),
                        ],
                        rng,
                        0.05,
                    )
                )
            )
            film.add(blade, rng.uniform(0.01, 0.08), 0.01)
            film.legend.add("shoulder blade", "part", blade)


def draw_devices(rng: np.random.Generator, film: Film) -> None:
    """Draw leads, tubes and electrodes."""
    if not chance(rng, 0.35):
        return
    sheet = np.zeros(film.canvas.shape, np.uint8)
    for _ in range(rng.integers(1, 5)):
        knots = np.cumsum(
            np.vstack([rng.uniform(-0.9, 0.9, (1, 2)), rng.normal(0, 0.4, (4, 2))]), axis=0
        )
        film.canvas.stroke_onto(
            sheet, smooth_curve(knots, closed=False, steps=12), rng.uniform(0.008, 0.03)
        )
    for _ in range(rng.integers(0, 4)):
        centre = (rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8))
        radius = rng.uniform(0.02, 0.05)
        disc = film.canvas.fill(ellipse(centre, (radius, radius)))
        film.add(disc, rng.uniform(0.05, 0.4))
    film.density += coverage(sheet) * np.float32(rng.uniform(0.05, 0.4))
