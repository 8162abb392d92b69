"""Fetal heads as an ultrasound machine shows them: a fan of speckle with a broken bright ring."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .acquisition import (
    Image,
    chance,
    collect,
    expose,
    image_shape,
    pose,
    to_rgb,
    wear,
    write_text,
)
from .phantom import Role, Structure
from .shapes import Canvas, Field, Mask, Points, ellipse, smooth_curve
from .texture import blur, fractal_noise, smooth_noise, speckle


@dataclass(frozen=True)
class _Fan:
    """The sector that the probe sees. `depth` is 0 at the probe and 1 at the far edge; `beam_x`
    and `beam_y` are the unit direction in which sound travels. All [H, W]."""

    shown: Mask
    depth: Field
    beam_x: Field
    beam_y: Field
    angle: Field  # across the fan, -1..1


@dataclass(frozen=True)
class _Head:
    centre: tuple[float, float]  # pixels
    radii: tuple[float, float]  # pixels, longer first
    angle: float
    x: Field  # along the long axis, +-1 at the outline
    y: Field
    r: Field  # 1 on the outline


def draw_fetal(rng: np.random.Generator, size: int) -> tuple[Image, tuple[Structure, ...]]:
    """One ultrasound phantom: RGB image [H, W, 3] and its structures."""
    aspect = 1.48 if chance(rng, 0.6) else rng.uniform(0.95, 1.6)
    shape = image_shape(size, aspect)
    canvas = Canvas(shape, pose((0, 0), 1.0))  # outlines here are in pixels
    fan = _draw_fan(rng, canvas)
    head = _place_head(rng, shape, fan)
    drawn: list[tuple[str, Role, Field | Mask]] = []

    echo = _surroundings(rng, canvas, fan, head, drawn)
    inside = canvas.fill(_outline(head, 1.0))
    echo = echo * (1 - inside) + inside * _brain(rng, canvas, fan, head, drawn)
    ring = _skull(rng, fan, head)
    echo = _shade(rng, echo, fan, head, drawn) + ring
    drawn += [("fetal head", "organ", inside), ("skull ring", "part", _ring_mask(head))]

    noise = _fan_speckle(rng, fan)
    strength = np.float32(rng.uniform(0.3, 0.8))
    echo = np.maximum(echo, 0) * (1 - strength + strength * noise)
    # Log compression: what makes faint echoes visible beside bone.
    echo = np.log1p(echo * np.float32(rng.uniform(0.8, 8)))

    image = expose(rng, echo, fan.shown, gamma=(-0.05, 0.25), noise=0.03, clip=0.6)
    if chance(rng, 0.04):
        image = 1 - image
    image[~fan.shown] = 0
    picture = (image * 255).astype(np.uint8)
    _mark(rng, picture)
    drawn.append(("fan", "whole", fan.shown))
    everywhere = np.ones(shape, np.bool_)
    return to_rgb(rng, wear(rng, picture)), collect(everywhere, drawn)


def _draw_fan(rng: np.random.Generator, canvas: Canvas) -> _Fan:
    height, width = canvas.shape
    apex_x = width * rng.normal(0.5, 0.04)
    above = height * rng.uniform(0.1, 1.6)  # the apex lies above the frame
    apex_y = -above
    half = rng.uniform(0.35, 0.75) if above > 0.4 * height else rng.uniform(0.6, 0.95)
    near = above * rng.uniform(0.85, 1.0) + height * rng.uniform(-0.05, 0.06)
    far = above + height * rng.uniform(0.93, 1.2)
    theta = np.linspace(-half, half, 40)
    edge = np.stack([apex_x + far * np.sin(theta), apex_y + far * np.cos(theta)], axis=1)
    top = np.stack([apex_x + near * np.sin(theta), apex_y + near * np.cos(theta)], axis=1)
    shown = canvas.fill(np.vstack([edge, top[::-1]])) > 0.5
    if chance(rng, 0.08):  # a linear probe, or a picture cut to the tissue
        shown[:] = True
    columns, rows = canvas.grid()
    dx, dy = columns - np.float32(apex_x), rows - np.float32(apex_y)
    radius = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    depth = np.clip((radius - np.float32(near)) / np.float32(far - near), 0, 1)
    angle = np.arctan2(dx, dy) / np.float32(half)
    return _Fan(shown, depth, dx / radius, dy / radius, angle)


def _fan_speckle(rng: np.random.Generator, fan: _Fan) -> Field:
    """Speckle of mean 1, drawn over (depth, angle): it widens with depth and follows the arcs."""
    size = max(fan.depth.shape)
    fine = size / 256 * rng.uniform(0.7, 1.4)
    rows, columns = size, round(size * 0.7)
    sheet = speckle(rng, (rows, columns), (fine, fine * rng.uniform(1.2, 3.0)))
    return cv2.remap(
        sheet,
        (np.clip(fan.angle, -1.3, 1.3) + np.float32(1.3)) * np.float32((columns - 1) / 2.6),
        fan.depth * np.float32(rows - 1),
        cv2.INTER_LINEAR,
    )


def _place_head(rng: np.random.Generator, shape: tuple[int, int], fan: _Fan) -> _Head:
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
    x = (dx * cos + dy * sin) / np.float32(radii[0])
    y = (dy * cos - dx * sin) / np.float32(radii[1])
    return _Head(centre, radii, float(angle), x, y, np.sqrt(x * x + y * y))


def _outline(head: _Head, factor: float) -> Points:
    return ellipse(head.centre, (head.radii[0] * factor, head.radii[1] * factor), head.angle)


def _ring_mask(head: _Head) -> Mask:
    return np.asarray((head.r > 0.9) & (head.r <= 1.0))


def _local(head: _Head, points: Points) -> Points:
    """Head coordinates (x along the long axis, +-1 at the outline) to pixels."""
    cos, sin = np.cos(head.angle), np.sin(head.angle)
    scaled = np.asarray(points, dtype=np.float64) * head.radii
    turn = np.array([[cos, sin], [-sin, cos]])
    return np.asarray(scaled @ turn + head.centre)


def _surroundings(
    rng: np.random.Generator,
    canvas: Canvas,
    fan: _Fan,
    head: _Head,
    drawn: list[tuple[str, Role, Field | Mask]],
) -> Field:
    """Echo strength of everything but the head: tissue in layers, fluid, placenta, a limb."""
    shape, size = canvas.shape, max(canvas.shape)
    tissue = rng.uniform(0.06, 0.4)
    cloud = fractal_noise(rng, shape, size * 0.15, 4)
    layer = smooth_noise(rng, shape, (size * 0.03, size * 0.25))
    mottle = np.float32(rng.uniform(0.05, 0.35)) * cloud + np.float32(rng.uniform(0, 0.4)) * layer
    echo = np.float32(tissue) * np.maximum(1 + mottle, 0.1)
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
        drawn.append(("amniotic fluid", "organ", pool * fan.shown * (head.r > 1)))
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
        drawn.append(("placenta", "organ", blob * fan.shown * (head.r > 1)))
    for _ in range(rng.integers(0, 3)):  # the body, a limb or another wall beside the head
        direction = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(1.25, 1.9)
        middle = _local(head, np.array([[away * np.cos(direction), away * np.sin(direction)]]))[0]
        reach = head.radii[0] * rng.uniform(0.2, 0.8), head.radii[0] * rng.uniform(0.15, 0.6)
        outline = ellipse(
            (middle[0], middle[1]), reach, rng.uniform(0, np.pi), rng=rng, wobble=0.12
        )
        body = canvas.fill(outline)
        level = rng.uniform(0.05, 0.6)
        echo += (np.float32(level) - echo) * body * np.float32(0.8)
        rim = blur(body, size / 256) * (1 - body)
        echo += rim * np.float32(rng.uniform(0, 2.0)) * (fan.beam_y * 0.5 + 0.5)
        drawn.append(("fetal body", "organ", body * fan.shown * (head.r > 1)))
    return echo


def _brain(
    rng: np.random.Generator,
    canvas: Canvas,
    fan: _Fan,
    head: _Head,
    drawn: list[tuple[str, Role, Field | Mask]],
) -> Field:
    """Echo strength inside the skull: dark brain, a haze near the probe, midline, plexus."""
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
        curve = _local(head, smooth_curve(knots, closed=False))
        line = canvas.stroke(curve, long * rng.uniform(0.012, 0.05))
        soft = blur(line * gaps, long * rng.uniform(0.008, 0.03))
        echo += soft * np.float32(bright * rng.uniform(0.4, 1.2))
        drawn.append(("midline", "part", line))
    if chance(rng, 0.35):  # falx and cavum: short parallel lines
        for side in (-1, 1):
            x, width = rng.uniform(-0.5, 0.4), rng.uniform(0.1, 0.35)
            y = side * rng.uniform(0.05, 0.16)
            line = canvas.stroke(
                _local(head, np.array([[x, y], [x + width, y + rng.normal(0, 0.03)]])),
                long * rng.uniform(0.01, 0.04),
            )
            soft = blur(line, long * rng.uniform(0.005, 0.02))
            echo += soft * np.float32(bright * rng.uniform(0.4, 1.2))
    for _ in range(int(rng.integers(2, 7)) if early else int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.6, 0.6), rng.choice([-1, 1]) * rng.uniform(0.12, 0.5)
        middle = _local(head, np.array([[x, y]]))[0]
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
        drawn.append(("choroid plexus", "part", plexus * (head.r < 0.9)))
    if chance(rng, 0.4):  # dark ventricle or cisterna
        for _ in range(rng.integers(1, 3)):
            x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5)
            middle = _local(head, np.array([[x, y]]))[0]
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


def _skull(rng: np.random.Generator, fan: _Fan, head: _Head) -> Field:
    """Echo of the bone [H, W].

    Bone reflects where the beam meets it square on: above and below, rarely at the sides.
    """
    cos, sin = np.float32(np.cos(head.angle)), np.float32(np.sin(head.angle))
    u, v = head.x / np.float32(head.radii[0]), head.y / np.float32(head.radii[1])
    norm = np.sqrt(u * u + v * v) + np.float32(1e-6)
    facing = np.abs(
        ((u * cos - v * sin) * fan.beam_x + (u * sin + v * cos) * fan.beam_y) / norm
    )
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
    return ring + halo


def _shade(
    rng: np.random.Generator,
    echo: Field,
    fan: _Fan,
    head: _Head,
    drawn: list[tuple[str, Role, Field | Mask]],
) -> Field:
    """Loss with depth, dark sides, shadows."""
    echo = echo * np.exp(-fan.depth * np.float32(rng.uniform(-0.3, 1.2)))
    side = np.float32(rng.uniform(0, 0.8))
    echo = echo * (1 - side * np.clip(np.abs(fan.angle) - 0.3, 0, 1))
    if chance(rng, 0.3):  # poor contact on one side of the probe
        edge, sign = rng.uniform(0.1, 0.8), rng.choice([-1.0, 1.0])
        echo = echo / (1 + np.exp((fan.angle * np.float32(sign) - np.float32(edge)) * 14))
    # Behind the skull it is darker, or brighter where the beam came through fluid.
    inside = head.r < 1
    if inside.any():
        middle, half = float(fan.angle[inside].mean()), float(fan.angle[inside].std()) * 2
        within = 1 / (1 + np.exp((np.abs(fan.angle - np.float32(middle)) - half) * 12 / half))
        behind = (fan.depth > float(fan.depth[inside].mean())) & ~inside
        echo = echo * (1 - within * behind * np.float32(rng.uniform(-0.3, 0.75)))
    for _ in range(rng.integers(0, 4)):  # edge shadows: narrow wedges along the beam
        at, width = rng.uniform(-0.9, 0.9), rng.uniform(0.02, 0.12)
        start = rng.uniform(0.0, 0.6)
        wedge = np.exp(-(((fan.angle - np.float32(at)) / np.float32(width)) ** 2))
        wedge = wedge * np.clip((fan.depth - np.float32(start)) * 8, 0, 1)
        echo = echo * (1 - wedge * np.float32(rng.uniform(0.3, 0.9)))
        drawn.append(("shadow", "part", (wedge > 0.5) & fan.shown))
    return echo


def _mark(rng: np.random.Generator, picture: Image) -> None:
    """What the machine's screen adds and what anonymising takes away (in place)."""
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
