"""Planes without a head: body, limbs and their bones."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.fetal.fan import Fan
from salip_ray.models.bundled.phantoms.phantom import Legend
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field, as_field, ellipse
from salip_ray.models.bundled.phantoms.texture import blur, fractal_noise


def draw_elsewhere(
    rng: np.random.Generator, canvas: Canvas, fan: Fan, echo: Field, legend: Legend
) -> Field:
    """Draw what such a plane shows over the echo strength of the surroundings [H, W]."""
    height, width = canvas.shape
    size = max(canvas.shape)

    def somewhere() -> tuple[float, float]:
        return width * rng.uniform(0.2, 0.8), height * rng.uniform(0.25, 0.8)

    if chance(rng, 0.5):  # the trunk: grainy, its outline hardly brighter
        reach = size * rng.uniform(0.1, 0.28)
        radii = (reach, reach * rng.uniform(0.7, 1.0))
        trunk = canvas.fill(
            ellipse(somewhere(), radii, rng.uniform(0, np.pi), rng=rng, wobble=0.06)
        )
        grain = np.clip(1 + 0.5 * fractal_noise(rng, canvas.shape, reach * 0.4, 3), 0, 3)
        echo = echo + (np.float32(rng.uniform(0.1, 0.5)) * grain - echo) * trunk
        rim = blur(trunk, size / 256) * (1 - trunk)
        echo = echo + rim * np.float32(rng.uniform(0, 1.0))
        legend.add("fetal body", "organ", trunk * fan.shown)
    for _ in range(rng.integers(0, 3)):  # dark pockets: bladder, stomach, fluid
        reach = size * rng.uniform(0.03, 0.12)
        radii = (reach, reach * rng.uniform(0.4, 0.9))
        pocket = canvas.fill(
            ellipse(somewhere(), radii, rng.uniform(0, np.pi), rng=rng, wobble=0.1)
        )
        echo = echo * (1 - blur(pocket, size / 256) * np.float32(rng.uniform(0.8, 1.0)))
        legend.add("amniotic fluid", "organ", pocket * fan.shown)
    for _ in range(rng.integers(0, 3)):  # long bones
        x, y = somewhere()
        angle, reach = rng.normal(0, 0.5), size * rng.uniform(0.06, 0.16)
        step = np.array([np.cos(angle), np.sin(angle)]) * reach
        ends = np.array([x, y]) + np.array([[-1.0], [0.0], [1.0]]) * step
        bone = canvas.stroke(ends, size * rng.uniform(0.008, 0.02))
        echo = echo + blur(bone, size / 256) * np.float32(rng.uniform(0.5, 2.0))
    return as_field(echo)
