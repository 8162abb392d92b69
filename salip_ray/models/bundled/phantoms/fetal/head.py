"""The fetal head: its pose, its ring of bone and its contents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.fetal.fan import Fan
from salip_ray.models.bundled.phantoms.phantom import Legend
from salip_ray.models.bundled.phantoms.shapes import (
    Canvas,
    Field,
    Mask,
    Points,
    as_field,
    ellipse,
    smooth_curve,
)
from salip_ray.models.bundled.phantoms.texture import blur, fractal_noise, smooth_noise


@dataclass(frozen=True)
class Head:
    """An ellipse, its outline the outer edge of the skull, and coordinates in it [H, W]."""

    centre: tuple[float, float]  # pixels (x, y)
    radii: tuple[float, float]  # pixels, longer first
    angle: float  # of the long axis, radians
    x: Field  # along the long axis, +-1 at the outline
    y: Field
    r: Field  # 1 on the outline


def draw_pose(rng: np.random.Generator, shape: tuple[int, int]) -> Head:
    """Draw a head of random size and pose; most lie within the frame."""
    height, width = shape
    # Share of the frame from a twentieth (first trimester) to a half.
    area = rng.uniform(0.05, 0.5) * height * width
    ratio = rng.uniform(0.68, 0.95)
    long = np.sqrt(area / np.pi / ratio)
    radii = (float(long), float(long * ratio))
    angle = rng.normal(0, 0.35) if chance(rng, 0.7) else rng.uniform(0, np.pi)
    free = 1 - np.sqrt(area / (height * width))
    centre = (
        width * (0.5 + free * rng.normal(0, 0.16)),
        height * (0.52 + free * rng.normal(0, 0.2)),
    )
    if chance(rng, 0.75):  # keep most heads inside the frame; the others are cut by its edge
        reach_x = np.hypot(radii[0] * np.cos(angle), radii[1] * np.sin(angle))
        reach_y = np.hypot(radii[0] * np.sin(angle), radii[1] * np.cos(angle))
        centre = (
            float(np.clip(centre[0], min(reach_x, width / 2), max(width - reach_x, width / 2))),
            float(np.clip(centre[1], min(reach_y, height / 2), max(height - reach_y, height / 2))),
        )
    rows, columns = np.indices(shape, dtype=np.float32)
    dx, dy = columns - np.float32(centre[0]), rows - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x = as_field((dx * cos + dy * sin) / np.float32(radii[0]))
    y = as_field((dy * cos - dx * sin) / np.float32(radii[1]))
    return Head(centre, radii, float(angle), x, y, np.sqrt(x * x + y * y))


def outline_of(head: Head) -> Points:
    """Return the skull's outer edge in pixels, [N, 2]."""
    return ellipse(head.centre, head.radii, head.angle)


def ring_mask(head: Head) -> Mask:
    """Return the bone, echoing or not: the outer tenth of the head, bool [H, W]."""
    return np.asarray((head.r > 0.9) & (head.r <= 1.0))


def to_pixels(head: Head, points: Points) -> Points:
    """Convert head coordinates (x along the long axis, +-1 at the outline) to pixels."""
    cos, sin = np.cos(head.angle), np.sin(head.angle)
    scaled = np.asarray(points, dtype=np.float64) * head.radii
    turn = np.array([[cos, sin], [-sin, cos]])
    return np.asarray(scaled @ turn + head.centre)


def draw_inside(rng: np.random.Generator, canvas: Canvas, head: Head, legend: Legend) -> Field:
    """Draw the echo strength in the skull: dark brain, a haze near the probe, midline, plexus."""
    shape, long = canvas.shape, head.radii[0]
    early = long < 0.2 * max(shape) and chance(rng, 0.6)  # young brains fill with bright plexus
    level = rng.uniform(0.02, 0.22)
    echo = np.float32(level) * (1 + 0.4 * fractal_noise(rng, shape, max(long * 0.35, 4), 4))
    near = np.clip(-(head.x * np.float32(np.sin(head.angle)) + head.y), -1, 1)
    echo += np.float32(rng.uniform(0, 0.25)) * np.clip(near, 0, 1)
    bright = rng.uniform(0.3, 1.3)

    if chance(rng, 0.75):
        gaps = smooth_noise(rng, shape, max(long * 0.2, 3)) > rng.uniform(-1.2, 0.4)
        ends = rng.uniform(-0.85, -0.3), rng.uniform(0.3, 0.85)
        bend = rng.normal(0, 0.03, 4)
        knots = np.stack([np.linspace(*ends, 4), bend + rng.normal(0, 0.05)], axis=1)
        curve = to_pixels(head, smooth_curve(knots, closed=False))
        line = canvas.stroke(curve, long * rng.uniform(0.012, 0.05))
        soft = blur(line * gaps, long * rng.uniform(0.008, 0.03))
        echo += soft * np.float32(bright * rng.uniform(0.4, 1.2))
        legend.add("midline", "part", line)
    if chance(rng, 0.35):  # falx and cavum: short parallel lines
        for side in (-1, 1):
            x, width = rng.uniform(-0.5, 0.4), rng.uniform(0.1, 0.35)
            y = side * rng.uniform(0.05, 0.16)
            line = canvas.stroke(
                to_pixels(head, np.array([[x, y], [x + width, y + rng.normal(0, 0.03)]])),
                long * rng.uniform(0.01, 0.04),
            )
            soft = blur(line, long * rng.uniform(0.005, 0.02))
            echo += soft * np.float32(bright * rng.uniform(0.4, 1.2))
    for _ in range(int(rng.integers(2, 7)) if early else int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.6, 0.6), rng.choice([-1, 1]) * rng.uniform(0.12, 0.5)
        middle = to_pixels(head, np.array([[x, y]]))[0]
        outline = ellipse(
            (middle[0], middle[1]),
            (long * rng.uniform(0.08, 0.28), long * rng.uniform(0.05, 0.15)),
            head.angle + rng.normal(0, 0.4),
            rng=rng,
            wobble=0.2,
        )
        plexus = canvas.fill(outline)
        grain = np.clip(1 + 0.5 * smooth_noise(rng, shape, max(long * 0.06, 2)), 0, 3)
        soft = blur(plexus, long * rng.uniform(0.02, 0.07)) * grain
        echo += soft * np.float32(rng.uniform(0.1, 0.7))
        legend.add("choroid plexus", "part", plexus * (head.r < 0.9))
    if chance(rng, 0.4):  # dark ventricle or cisterna
        for _ in range(rng.integers(1, 3)):
            x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5)
            middle = to_pixels(head, np.array([[x, y]]))[0]
            hole = canvas.fill(
                ellipse(
                    (middle[0], middle[1]),
                    (long * rng.uniform(0.1, 0.3), long * rng.uniform(0.05, 0.13)),
                    head.angle + rng.normal(0, 0.4),
                    rng=rng,
                    wobble=0.2,
                )
            )
            echo *= 1 - blur(hole, long * 0.02) * np.float32(rng.uniform(0.5, 0.95))
    return echo


def draw_skull(rng: np.random.Generator, fan: Fan, head: Head) -> Field:
    """Draw the echo of the bone [H, W].

    Bone reflects where the beam meets it square on: above and below, rarely at the sides.
    """
    cos, sin = np.float32(np.cos(head.angle)), np.float32(np.sin(head.angle))
    u, v = head.x / np.float32(head.radii[0]), head.y / np.float32(head.radii[1])
    norm = np.sqrt(u * u + v * v) + np.float32(1e-6)
    facing = np.abs(((u * cos - v * sin) * fan.beam_x + (u * sin + v * cos) * fan.beam_y) / norm)
    shape, long = fan.depth.shape, head.radii[0]
    floor = np.float32(rng.uniform(0.0, 0.3) if chance(rng, 0.7) else rng.uniform(0.3, 0.7))
    strength = floor + (1 - floor) * facing ** np.float32(rng.uniform(1.0, 5.0))
    broken = smooth_noise(rng, shape, max(long * rng.uniform(0.12, 0.6), 4))
    strength *= np.clip(0.75 + np.float32(rng.uniform(0.1, 0.8)) * broken, 0.02, 1.6)

    # The published outline runs along the outer edge of the bone.
    width = rng.uniform(0.02, 0.09)
    offset = (head.r - np.float32(1 - width * rng.uniform(0.6, 1.1))) / np.float32(width)
    offset += 0.25 * smooth_noise(rng, shape, max(long * 0.25, 4))
    ring = strength * np.exp(-offset * offset) * np.float32(rng.uniform(0.6, 2.5))
    halo = blur(ring, width * long) * np.float32(rng.uniform(0, 0.6))
    return as_field(ring + halo)
