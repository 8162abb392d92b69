"""The surroundings of the head, and the loss of sound on its way."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.fetal.fan import Fan
from salip_ray.models.bundled.phantoms.fetal.head import Head, to_pixels
from salip_ray.models.bundled.phantoms.phantom import Legend
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field, as_field, ellipse
from salip_ray.models.bundled.phantoms.texture import blur, fractal_noise, smooth_noise


def draw_surroundings(
    rng: np.random.Generator,
    canvas: Canvas,
    fan: Fan,
    head: Head,
    legend: Legend,
) -> Field:
    """Draw the echo strength outside the head: tissue in layers, fluid, placenta, a limb."""
    shape, size = canvas.shape, max(canvas.shape)
    tissue = rng.uniform(0.06, 0.4)
    cloud = fractal_noise(rng, shape, size * 0.15, 4)
    layer = smooth_noise(rng, shape, (size * 0.03, size * 0.25))
    mottle = np.float32(rng.uniform(0.05, 0.35)) * cloud + np.float32(rng.uniform(0, 0.4)) * layer
    echo = as_field(np.float32(tissue) * np.maximum(1 + mottle, 0.1))
    for _ in range(rng.integers(0, 5)):  # fasciae, bright along the probe's face
        at, thickness = rng.uniform(0.02, 0.35), rng.uniform(0.004, 0.02)
        wave = 0.02 * smooth_noise(rng, shape, (size * 0.5, size * 0.15))
        line = np.exp(-(((fan.depth + wave - np.float32(at)) / np.float32(thickness)) ** 2))
        echo += np.float32(rng.uniform(0.1, 0.7)) * line

    if chance(rng, 0.7):  # amniotic fluid: black, off centre around the head
        reach = head.radii[0] * rng.uniform(1.0, 2.0), head.radii[1] * rng.uniform(1.1, 2.0)
        shift = rng.normal(0, 0.45, 2) * head.radii
        middle = (head.centre[0] + shift[0], head.centre[1] + shift[1])
        pool = canvas.fill(ellipse(middle, reach, rng.uniform(0, np.pi), rng=rng, wobble=0.12))
        echo *= 1 - blur(pool, size / 256 * rng.uniform(0.5, 3)) * np.float32(
            rng.uniform(0.85, 1.0)
        )
        legend.add("amniotic fluid", "organ", pool * fan.shown * (head.r > 1))
    if chance(rng, 0.35):  # placenta or a wall of even grain
        side = rng.choice([-1.0, 1.0])
        middle = (
            head.centre[0] + side * head.radii[0] * rng.uniform(1.2, 1.9),
            head.centre[1] + head.radii[1] * rng.normal(0, 0.8),
        )
        blob = canvas.fill(
            ellipse(
                middle,
                (size * rng.uniform(0.1, 0.25), size * rng.uniform(0.08, 0.2)),
                rng.uniform(0, np.pi),
                rng=rng,
                wobble=0.1,
            )
        )
        grain = 1 + 0.25 * smooth_noise(rng, shape, size * 0.02)
        echo += (np.float32(rng.uniform(0.3, 0.9)) * grain - echo) * blur(blob, size / 200)
        legend.add("placenta", "organ", blob * fan.shown * (head.r > 1))
    for _ in range(rng.integers(0, 3)):  # the body, a limb or another wall next to the head
        direction = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(1.25, 1.9)
        middle = to_pixels(head, np.array([[away * np.cos(direction), away * np.sin(direction)]]))[
            0
        ]
        reach = head.radii[0] * rng.uniform(0.2, 0.8), head.radii[0] * rng.uniform(0.15, 0.6)
        outline = ellipse(
            (middle[0], middle[1]), reach, rng.uniform(0, np.pi), rng=rng, wobble=0.12
        )
        body = canvas.fill(outline)
        level = rng.uniform(0.05, 0.6)
        echo += (np.float32(level) - echo) * body * np.float32(0.8)
        rim = blur(body, size / 256) * (1 - body)
        echo += rim * np.float32(rng.uniform(0, 2.0)) * (fan.beam_y * 0.5 + 0.5)
        legend.add("fetal body", "organ", body * fan.shown * (head.r > 1))
    return echo


def shade(
    rng: np.random.Generator,
    echo: Field,
    fan: Fan,
    head: Head,
    legend: Legend,
) -> Field:
    """Apply loss with depth, dark sides and shadows."""
    echo = as_field(echo * np.exp(-fan.depth * np.float32(rng.uniform(-0.3, 1.2))))
    side = np.float32(rng.uniform(0, 0.8))
    echo = as_field(echo * (1 - side * np.clip(np.abs(fan.angle) - 0.3, 0, 1)))
    if chance(rng, 0.3):  # poor contact on one side of the probe
        edge, sign = rng.uniform(0.1, 0.8), rng.choice([-1.0, 1.0])
        falling = (fan.angle * np.float32(sign) - np.float32(edge)) * 14
        echo = as_field(echo / (1 + np.exp(falling)))
    # Behind the skull it is darker, or brighter where the beam came through fluid.
    inside = head.r < 1
    if inside.any():
        middle, half = float(fan.angle[inside].mean()), float(fan.angle[inside].std()) * 2
        within = 1 / (1 + np.exp((np.abs(fan.angle - np.float32(middle)) - half) * 12 / half))
        behind = (fan.depth > float(fan.depth[inside].mean())) & ~inside
        echo = as_field(echo * (1 - within * behind * np.float32(rng.uniform(-0.3, 0.75))))
    for _ in range(rng.integers(0, 4)):  # edge shadows: narrow wedges along the beam
        at, width = rng.uniform(-0.9, 0.9), rng.uniform(0.02, 0.12)
        start = rng.uniform(0.0, 0.6)
        wedge = np.exp(-(((fan.angle - np.float32(at)) / np.float32(width)) ** 2))
        wedge = wedge * np.clip((fan.depth - np.float32(start)) * 8, 0, 1)
        echo = as_field(echo * (1 - wedge * np.float32(rng.uniform(0.3, 0.9))))
        legend.add("shadow", "part", (wedge > 0.5) & fan.shown)
    return echo
