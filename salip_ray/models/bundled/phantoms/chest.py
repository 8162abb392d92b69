"""Frontal chest X-rays: thicknesses of tissue added up along the beam, then developed.

Outlines use units of about half a thorax: midline at x = 0, lung apices near y = -0.9, domes of
the diaphragm near y = 0.45. As radiologists look at it, the patient's left is on the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .acquisition import (
    Image,
    chance,
    collect,
    expose,
    image_shape,
    pose,
    to_rgb,
    view,
    wear,
    write_text,
)
from .phantom import Role, Structure
from .shapes import Canvas, Field, Mask, Points, Warp, ellipse, jitter, smooth_curve
from .texture import blur, fractal_noise, smooth_noise

# A lung's outline ends with its floor, from the heart to the costophrenic angle.
_FLOOR_POINTS = 32
_RIGHT, _LEFT = -1.0, 1.0  # where a side of the patient lies along x


@dataclass
class _Film:
    """The sum so far: `density` grows with tissue along the beam (white on a common film)."""

    canvas: Canvas
    density: Field
    drawn: list[tuple[str, Role, Field | Mask]] = field(default_factory=list)

    def add(self, coverage: Field, amount: float, soft: float = 0.0) -> None:
        """Add `amount` where `coverage`, its edge softened by `soft` units."""
        self.density += blur(coverage, soft * self.canvas.scale) * np.float32(amount)


def draw_chest(rng: np.random.Generator, size: int) -> tuple[Image, tuple[Structure, ...]]:
    """One chest phantom: RGB image [H, W, 3] and its structures."""
    shape = image_shape(size, rng.uniform(0.85, 1.4))
    canvas = _place(rng, shape)
    film = _Film(canvas, np.zeros(shape, np.float32))

    right, left = _lung(rng, _RIGHT), _lung(rng, _LEFT)
    lungs = {_RIGHT: canvas.fill(right), _LEFT: canvas.fill(left)}
    both = np.maximum(lungs[_RIGHT], lungs[_LEFT])

    body = _body(rng, film)
    _abdomen(rng, film, body, right, left)
    solid = _mediastinum(rng, film)
    # Ill or badly exposed lungs hardly differ from what surrounds them.
    air = rng.uniform(0.1, 0.5)
    for side in (_RIGHT, _LEFT):
        # Lung is thickest in its middle: part of its darkness fades towards the edges.
        sharp = blur(lungs[side], rng.uniform(0.003, 0.025) * canvas.scale)
        deep = blur(lungs[side], 0.12 * canvas.scale) * sharp
        edge = np.float32(rng.uniform(0.25, 0.9))
        dark = (edge * sharp + (1 - edge) * deep) * np.float32(air * rng.uniform(0.8, 1.2))
        film.density -= dark * (1 - solid)
    _vessels(rng, film, both)
    _opacities(rng, film, lungs, 1 - 0.8 * solid)
    _bones(rng, film, body)
    _devices(rng, film)

    film.drawn += [
        ("right lung", "organ", lungs[_RIGHT]),
        ("left lung", "organ", lungs[_LEFT]),
        ("lungs", "whole", (lungs[_RIGHT] > 0.5) | (lungs[_LEFT] > 0.5)),
    ]
    density = film.density + 0.06 * rng.random() * smooth_noise(rng, shape, size * 0.25)
    return _develop(rng, density, film)


def _place(rng: np.random.Generator, shape: tuple[int, int]) -> Canvas:
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


def _lung(rng: np.random.Generator, side: float) -> Points:
    """Closed outline of one lung field, the part behind the heart and opacified lung included."""
    apex = rng.uniform(-0.98, -0.78)
    base = rng.uniform(0.35, 0.6) + (0.05 if side == _LEFT else 0.0)
    inner = rng.uniform(0.1, 0.2)
    width = rng.uniform(0.72, 0.9)
    notch = rng.uniform(0, 0.1) if side == _LEFT else rng.uniform(0, 0.03)  # the aortic arch
    corner = base + rng.uniform(0.02, 0.3)  # costophrenic angle, blunt when full of fluid
    up = jitter(
        [
            (width, corner),
            (width + 0.03, 0.25),
            (width - 0.03, -0.1),
            (width - 0.13, -0.45),
            (width - 0.27, -0.72),
            (0.36, apex),
            (0.2, apex * 0.85),
            (inner + 0.01, -0.55),
            (inner + notch, -0.38),
            (inner + 0.02, -0.15),
            (inner + rng.uniform(-0.03, 0.08), 0.15),
            (inner + rng.uniform(-0.05, 0.1), base + rng.uniform(-0.05, 0.12)),
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


def _body(rng: np.random.Generator, film: _Film) -> Field:
    """Trunk, neck, arms and breasts; returns the trunk's coverage."""
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
    right = jitter(half, rng, 0.02) * (_RIGHT, 1.0)
    left = jitter(half, rng, 0.02) * (_LEFT, 1.0)
    outline = np.vstack(
        [smooth_curve(right, closed=False), smooth_curve(left, closed=False)[::-1]]
    )
    trunk = film.canvas.fill(outline)
    tissue = rng.uniform(0.45, 0.7)
    # Thin at the skin: a blurred outline, cut off at the skin itself.
    thickness = np.minimum(blur(trunk, 0.12 * film.canvas.scale) * 1.2, 1.0) * trunk
    film.density += thickness * np.float32(tissue)
    x, y = film.canvas.grid()
    film.density *= 1 - np.float32(rng.uniform(0, 0.35)) * np.clip(-y - np.float32(0.3), 0, 1)

    everything = trunk
    if chance(rng, 0.7):
        out = rng.uniform(0.05, 0.6)  # how far the arms are held off the trunk
        for sign in (_RIGHT, _LEFT):
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
            film.drawn.append(("arm", "organ", arm * (1 - trunk)))
            everything = np.maximum(everything, arm)
    if chance(rng, 0.4):  # breasts
        amount, low = rng.uniform(0.03, 0.14), rng.uniform(0.25, 0.5)
        for sign in (_RIGHT, _LEFT):
            radii = (rng.uniform(0.28, 0.42), rng.uniform(0.28, 0.42))
            breast = film.canvas.fill(ellipse((sign * 0.55, low), radii, rng=rng, wobble=0.05))
            film.add(breast, amount, 0.02)
    film.drawn.append(("body outline", "whole", everything))
    return trunk


def _abdomen(
    rng: np.random.Generator, film: _Film, body: Field, right: Points, left: Points
) -> None:
    """What lies under the domes (liver, spleen) and the gas in stomach and bowel."""
    domes = np.vstack([right[-_FLOOR_POINTS:][::-1], left[-_FLOOR_POINTS:]])
    low = max(left[-1, 1], right[-1, 1]) + 0.4
    corners = np.array([(1.6, low), (1.6, 2.6), (-1.6, 2.6), (-1.6, low)])
    below = film.canvas.fill(np.vstack([domes, corners])) * body
    film.add(below, rng.uniform(0.02, 0.3), rng.uniform(0.005, 0.08))
    film.drawn.append(("abdomen", "organ", below))
    base = float(left[-_FLOOR_POINTS:, 1].mean())
    if chance(rng, 0.55):
        centre = (rng.uniform(0.25, 0.6), base + rng.uniform(0.12, 0.3))
        radii = (rng.uniform(0.08, 0.25), rng.uniform(0.05, 0.13))
        bubble = film.canvas.fill(ellipse(centre, radii, rng.normal(0, 0.3), rng=rng, wobble=0.12))
        film.add(bubble, -rng.uniform(0.1, 0.4), 0.01)
        film.drawn.append(("stomach gas", "part", bubble))
    for _ in range(rng.integers(0, 4) if chance(rng, 0.35) else 0):
        centre = (rng.uniform(-0.7, 0.7), base + rng.uniform(0.3, 0.8))
        loop = film.canvas.fill(
            ellipse(centre, (rng.uniform(0.08, 0.25), rng.uniform(0.05, 0.1)), rng.normal(0, 0.8))
        )
        film.add(loop, -rng.uniform(0.08, 0.3), 0.015)
        film.drawn.append(("bowel gas", "part", loop))


def _mediastinum(rng: np.random.Generator, film: _Film) -> Field:
    """Great vessels, heart, spine and trachea; returns how much of the lung's air their bulk
    displaces, 0..1 [H, W]."""
    wide = rng.uniform(0.13, 0.24)
    knob = rng.uniform(0.02, 0.14)
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
    film.drawn.append(("heart", "organ", heart))

    lean = rng.normal(0, 0.03, 5)
    axis = smooth_curve(np.stack([lean, np.linspace(-1.6, 1.8, 5)], axis=1), closed=False)
    spine = film.canvas.stroke(axis, rng.uniform(0.16, 0.26))
    film.add(spine, rng.uniform(0.0, 0.14), 0.02)
    visible = rng.uniform(0.0, 0.06) if chance(rng, 0.5) else 0.0
    spacing = rng.uniform(0.13, 0.18)
    for y in np.arange(-1.5, 1.5, spacing):  # discs between the vertebrae, and spinous processes
        disc = film.canvas.stroke(np.array([[-0.1, y], [0.0, y + 0.005], [0.1, y]]), spacing * 0.25)
        film.add(disc, -visible, 0.01)
    film.drawn.append(("spine", "organ", spine))

    trachea = film.canvas.stroke(
        smooth_curve(
            jitter([(0, -1.5), (0.0, -1.0), (-0.01, -0.6), (-0.02, -0.42)], rng, 0.015),
            closed=False,
        ),
        rng.uniform(0.07, 0.12) * np.linspace(1.0, 0.6, 24),
    )
    film.add(trachea, -rng.uniform(0.02, 0.14), rng.uniform(0.01, 0.04))
    film.drawn.append(("trachea", "part", trachea))
    return bulk * np.float32(rng.uniform(0.55, 1.0))


def _vessels(rng: np.random.Generator, film: _Film, lungs: Field) -> None:
    """Hila, and vessels that branch from them and taper outwards."""
    sheet = np.zeros(film.canvas.shape, np.uint8)
    width = rng.uniform(0.018, 0.04)
    for side in (_RIGHT, _LEFT):
        root = (side * rng.uniform(0.18, 0.26), rng.uniform(-0.22, -0.05))
        radii = (rng.uniform(0.06, 0.12), rng.uniform(0.1, 0.2))
        hilum = film.canvas.fill(ellipse(root, radii, side * 0.3, rng=rng, wobble=0.15))
        film.add(hilum, rng.uniform(0.0, 0.15), 0.03)
        film.drawn.append(("hilum", "part", hilum))
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
    vessels = blur(sheet.astype(np.float32) / 255, 0.005 * film.canvas.scale)
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


def _opacities(
    rng: np.random.Generator, film: _Film, lungs: dict[float, Field], room: Field
) -> None:
    """Pneumonia, oedema, effusion: lung that has turned white, from a patch to all of it.

    `room` [H, W] is the share of the beam that meets air: none is left to turn white elsewhere.
    """
    shape, scale = film.canvas.shape, film.canvas.scale
    both = np.maximum(lungs[_RIGHT], lungs[_LEFT]) * room
    if chance(rng, 0.45):  # fine or coarse streaks everywhere
        grain = fractal_noise(rng, shape, scale * rng.uniform(0.05, 0.2), 3)
        film.density += both * grain * np.float32(rng.uniform(0.01, 0.06))
    if chance(rng, 0.35):  # haze, thicker towards the base
        _, y = film.canvas.grid()
        weight = np.clip(np.float32(0.5) + y * np.float32(rng.uniform(-0.2, 0.8)), 0, 1)
        film.density += both * weight * np.float32(rng.uniform(0.03, 0.35))
    for _ in range(rng.integers(1, 5) if chance(rng, 0.5) else 0):
        side = _RIGHT if chance(rng, 0.5) else _LEFT
        centre = (side * rng.uniform(0.25, 0.75), rng.uniform(-0.7, 0.5))
        radii = (rng.uniform(0.1, 0.4), rng.uniform(0.08, 0.35))
        patch = film.canvas.fill(ellipse(centre, radii, rng.normal(0, 0.5), rng=rng, wobble=0.2))
        soft = blur(patch, scale * rng.uniform(0.02, 0.12)) * lungs[side]
        cloud = np.clip(0.8 + 0.4 * fractal_noise(rng, shape, scale * 0.15, 3), 0, 2)
        film.density += soft * room * cloud * np.float32(rng.uniform(0.05, 0.4))
        film.drawn.append(("opacity", "part", patch * lungs[side]))
    if chance(rng, 0.12):  # effusion, level at the base of one lung
        side = _RIGHT if chance(rng, 0.5) else _LEFT
        x, y = film.canvas.grid()
        level = np.float32(rng.uniform(0.0, 0.45)) - x * np.float32(side * rng.uniform(-0.1, 0.4))
        fluid = np.clip((y - level) * 8, 0, 1) * lungs[side]
        film.density += fluid * room * np.float32(rng.uniform(0.15, 0.5))
        film.drawn.append(("opacity", "part", fluid))


def _bones(rng: np.random.Generator, film: _Film, body: Field) -> None:
    """Ribs (brighter at their edges), clavicles and shoulder blades."""
    canvas = film.canvas
    amount = rng.uniform(0.02, 0.13)
    width = rng.uniform(0.045, 0.075)
    spacing = rng.uniform(0.15, 0.2)
    tilt = rng.uniform(0.25, 0.6)
    wide = rng.uniform(0.86, 0.98)
    sheet = np.zeros(canvas.shape, np.uint8)
    hollow = np.zeros(canvas.shape, np.uint8)
    total = np.zeros(canvas.shape, np.float32)
    ribs = [(side, number) for side in (_RIGHT, _LEFT) for number in range(10)]
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
        rib = sheet.astype(np.float32) / 255
        total += rib
        film.drawn.append(("rib", "part", rib))
    if chance(rng, 0.6):  # front ends, fainter and falling the other way
        sheet[:] = 0
        drop = rng.uniform(0.2, 0.4)
        for side, number in ribs[:7] + ribs[10:17]:
            y = -0.6 + number * spacing
            front = np.array(
                [(side * wide, y), (side * 0.65, y + drop * 0.7), (side * 0.3, y + drop)]
            )
            canvas.stroke_onto(sheet, smooth_curve(front, closed=False), width, 110)
        total += sheet.astype(np.float32) / 255
    bone = total - np.float32(rng.uniform(0.1, 0.6)) * hollow.astype(np.float32) / 255
    film.add(bone * body, amount, 0.006)

    amount = rng.uniform(0.03, 0.15)
    height = rng.uniform(-0.85, -0.68)
    for side in (_RIGHT, _LEFT):
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
        film.drawn.append(("clavicle", "part", clavicle))
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
            film.drawn.append(("shoulder blade", "part", blade))


def _devices(rng: np.random.Generator, film: _Film) -> None:
    """Leads, tubes and electrodes."""
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
    film.density += sheet.astype(np.float32) / 255 * np.float32(rng.uniform(0.05, 0.4))


def _develop(
    rng: np.random.Generator, density: Field, film: _Film
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
    return to_rgb(rng, wear(rng, picture)), collect(shown, film.drawn)
