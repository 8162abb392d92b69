"""Slices through the base: face, eyes, cerebellum and temporal lobes."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.brain.slice import (
    Slice,
    depth_within,
    draw_cerebellum,
    draw_cortex,
)
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field, ellipse, jitter, smooth_curve
from salip_ray.models.bundled.phantoms.texture import blur, fractal_noise


def draw_base(rng: np.random.Generator, slice_: Slice, *, with_temporal_lobes: bool) -> Field:
    """Paint face, cerebellum and brain stem, and perhaps what lies above them: the brain [H, W]."""
    canvas = slice_.canvas
    head = face_outline(rng, canvas)
    draw_face(rng, slice_, head)

    brain = np.zeros(canvas.shape, np.float32)
    lobes: Field | None = None
    if with_temporal_lobes:
        width = rng.uniform(0.17, 0.27)
        outlines = [
            ellipse(
                (side * rng.uniform(0.36, 0.44), rng.uniform(-0.3, -0.1)),
                (width, rng.uniform(0.2, 0.32)),
                side * rng.uniform(-0.3, 0.3),
                rng=rng,
                wobble=0.06,
            )
            for side in (-1, 1)
        ]
        if chance(rng, 0.3):  # lowest part of the frontal lobes
            outlines.append(ellipse((0, -0.62), (rng.uniform(0.08, 0.3), 0.22), squareness=2.4))
        lobes = canvas.fill(*outlines)
        casing = np.clip(blur(lobes, 0.05 * canvas.scale) * 2.2, 0, 1)
        slice_.paint(casing, "bone", rng.uniform(0.6, 1.0))
        slice_.paint(lobes, "fluid")
        draw_cortex(rng, slice_, lobes, "base", width, 0.25)
        brain = np.maximum(brain, lobes)

    y = rng.uniform(0.32, 0.46)
    grown = 1.0 if with_temporal_lobes else rng.uniform(0.55, 1.0)
    rx, ry = grown * rng.uniform(0.44, 0.56), grown * rng.uniform(0.26, 0.36)
    notch = rng.uniform(0.0, 0.12)
    half = [(0.0, y - ry * 0.75), (rx * 0.6, y - ry * 0.75), (rx, y), (rx * 0.75, y + ry * 0.8)]
    half += [(rx * 0.25, y + ry), (0.0, y + ry - notch)]
    mirrored = [(-px, py) for px, py in half[-2:0:-1]]
    outline = smooth_curve(jitter(half + mirrored, rng, 0.012))
    cerebellum = canvas.fill(outline)
    stem = canvas.fill(
        ellipse(
            (0, y - ry * 0.9 - rng.uniform(0.0, 0.06)),
            (rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.17)),
            rng=rng,
            wobble=0.06,
        )
    )
    fossa = np.maximum(cerebellum, stem)
    slice_.paint(np.clip(blur(fossa, 0.05 * canvas.scale) * 2.2, 0, 1), "bone", 0.9)
    cistern = np.clip(blur(fossa, 0.02 * canvas.scale) * 2.5, 0, 1)
    slice_.paint(cistern, "fluid", rng.uniform(0.5, 1.0))
    draw_cerebellum(rng, slice_, cerebellum)
    slice_.paint(stem, "white", rng.uniform(0.6, 1.0))
    if chance(rng, 0.7):
        fourth = ellipse((0, y - ry * 0.55), (rng.uniform(0.03, 0.1), rng.uniform(0.03, 0.06)))
        slice_.paint_part("ventricles", canvas.fill(fourth), "fluid")
    brain = np.maximum(brain, fossa)
    if lobes is not None:  # the reference runs on between lobes and stem, over the cisterns
        bridge = canvas.fill(
            ellipse((0, y - ry * 1.15), (rng.uniform(0.25, 0.45), rng.uniform(0.1, 0.2)))
        )
        draw_cortex(rng, slice_, bridge * (1 - brain), "base", 0.3, 0.2)
        brain = np.maximum(brain, bridge)
    slice_.legend.add("head outline", "whole", head)
    slice_.legend.add("cerebellum", "part", cerebellum)
    return brain * head


def face_outline(rng: np.random.Generator, canvas: Canvas) -> Field:
    """Draw the outline of a head at the level of the face: its coverage [H, W]."""
    return canvas.fill(
        smooth_curve(
            jitter(
                [
                    (0.0, -0.93 - rng.uniform(0, 0.1)),
                    (0.32, -0.87),
                    (0.58, -0.62),
                    (0.72, -0.1),
                    (0.7, 0.35),
                    (0.5, 0.75),
                    (0.0, 0.93),
                    (-0.5, 0.75),
                    (-0.7, 0.35),
                    (-0.72, -0.1),
                    (-0.58, -0.62),
                    (-0.3, -0.88),
                ],
                rng,
                0.02,
            )
        )
    )


def draw_face(rng: np.random.Generator, slice_: Slice, head: Field) -> None:
    """Draw skin, a patchwork of muscle, fat and bone, the nose's airways and the eyes."""
    canvas = slice_.canvas
    shape, scale, tissue = canvas.shape, canvas.scale, slice_.tissue
    slice_.paint(head, "fat")
    depth = depth_within(head, scale)
    inner = np.clip((depth - np.float32(rng.uniform(0.04, 0.1))) * 30, 0, 1)
    patches = fractal_noise(rng, shape, scale * rng.uniform(0.12, 0.25), 3)
    value = np.select(
        [patches < -0.9, patches < -0.35, patches < 0.8],
        [tissue["air"], tissue["bone"], tissue["muscle"]],
        tissue["fat"],
    ).astype(np.float32)
    slice_.paint_field(inner, blur(value, 0.012 * scale))
    nose = canvas.fill(
        ellipse(
            (0, rng.uniform(-0.7, -0.5)),
            (rng.uniform(0.08, 0.2), rng.uniform(0.2, 0.35)),
            rng=rng,
            wobble=0.12,
        )
    )
    slice_.paint(nose, "air", rng.uniform(0.7, 1.0))
    septum = canvas.stroke(np.array([[0, -0.9], [0.01, -0.6], [0, -0.3]]), 0.03)
    slice_.paint(septum * nose, "muscle")
    if chance(rng, 0.65):
        y, radius = rng.uniform(-0.78, -0.62), rng.uniform(0.11, 0.16)
        for side in (-1, 1):
            x = side * rng.uniform(0.28, 0.34)
            cone = np.array([[x - 0.17, y], [x + 0.17, y], [side * 0.14, y + 0.5]])
            slice_.paint(canvas.fill(smooth_curve(cone)), "fat")
            nerve = smooth_curve([(x, y), (x * 0.75, y + 0.25), (x * 0.4, y + 0.5)], closed=False)
            slice_.paint(canvas.stroke(nerve, 0.035), "muscle")
            eye = canvas.fill(ellipse((x, y), (radius, radius), rng=rng, wobble=0.02))
            slice_.paint(eye, "muscle")
            slice_.paint(canvas.fill(ellipse((x, y), (radius * 0.85, radius * 0.85))), "eye")
            lens = canvas.fill(ellipse((x, y - radius * 0.65), (radius * 0.4, radius * 0.2)))
            slice_.paint(lens, "grey")
            slice_.legend.add("eye", "organ", eye)
