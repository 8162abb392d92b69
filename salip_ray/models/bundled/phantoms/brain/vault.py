"""Slices through the vault: scalp, skull, fluid and the folded brain."""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.brain.slice import Slice, draw_cerebellum, draw_cortex
from salip_ray.models.bundled.phantoms.shapes import Field, Points, ellipse, jitter, smooth_curve
from salip_ray.models.bundled.phantoms.texture import blur


def draw_vault(rng: np.random.Generator, slice_: Slice, level: str) -> Field:
    """Paint head and brain at "middle", "ventricles", "upper" or "crown": the brain [H, W]."""
    canvas = slice_.canvas
    shrink = {"middle": 0.98, "ventricles": 1.0, "upper": rng.uniform(0.82, 0.98)}.get(
        level, rng.uniform(0.55, 0.82)
    )
    rx, ry = 0.74 * shrink * rng.uniform(0.94, 1.05), 0.94 * shrink * rng.uniform(0.95, 1.04)
    # Layers are cut at a slant near the crown and look thicker there.
    slant = 1.0 if level != "crown" else rng.uniform(1.1, 1.9)
    scalp = rng.uniform(0.03, 0.075) * slant
    skull = rng.uniform(0.03, 0.07) * slant
    gap = (rng.uniform(0.004, 0.035) if chance(rng, 0.75) else rng.uniform(0.03, 0.09)) * slant
    square = rng.uniform(2.0, 2.3)
    wobble = rng.normal(0, 0.012, 3)

    def ring(inset: float) -> Field:
        outline = ellipse((0, 0), (rx - inset, ry - inset), squareness=square)
        angle = np.arctan2(outline[:, 1], outline[:, 0])
        bumps = 1 + sum(w * np.cos((k + 2) * angle + k) for k, w in enumerate(wobble))
        return canvas.fill(outline * bumps[:, None])

    head = ring(0.0)
    slice_.paint(head, "fat")
    if chance(rng, 0.6):  # muscle under the fat, at the temples
        slice_.paint(ring(scalp * rng.uniform(0.3, 0.8)), "muscle", rng.uniform(0.4, 1.0))
    outside, inside = ring(scalp), ring(scalp + skull)
    slice_.paint(outside, "bone")
    if chance(rng, 0.6):  # marrow between two plates
        slice_.paint(
            ring(scalp + 0.3 * skull) - ring(scalp + 0.75 * skull), "marrow", rng.uniform(0.2, 1.0)
        )
    if level == "middle" and chance(rng, 0.6):  # frontal sinus or tops of the orbits
        _frontal_sinus(rng, slice_, ry)
    slice_.paint(inside, "fluid", rng.uniform(0.8, 1.0))

    bx, by = rx - scalp - skull - gap, ry - scalp - skull - gap
    outline = _brain_outline(rng, bx, by)
    brain = canvas.fill(outline) * inside
    draw_cortex(rng, slice_, brain, level, bx, by)
    if level == "middle":
        _midbrain(rng, slice_, by)
    elif level == "ventricles":
        _ventricles(rng, slice_, bx, by, gap)
    elif level == "upper" and chance(rng, 0.4):
        for side in (-1, 1):
            slice_.paint_part(
                "ventricles",
                canvas.fill(
                    ellipse((side * 0.12 * bx, 0), (0.05 * bx, rng.uniform(0.1, 0.3) * by))
                ),
                "fluid",
            )
    _fissure(rng, slice_, by, whole=level in ("upper", "crown"))
    slice_.legend.add("head outline", "whole", head)
    slice_.legend.add("skull", "part", outside * (1 - inside))
    return brain


def _brain_outline(rng: np.random.Generator, bx: float, by: float) -> Points:
    """Draw the outline of the brain: an oval with dents at the midline, front and back."""
    outline = ellipse((0, 0), (bx, by), rng=rng, wobble=0.012, squareness=rng.uniform(2.0, 2.3))
    angle = np.arctan2(outline[:, 1], outline[:, 0])
    front = np.exp(-(((angle + np.pi / 2) / 0.1) ** 2)) * rng.uniform(0, 0.04)
    back = np.exp(-(((angle - np.pi / 2) / 0.1) ** 2)) * rng.uniform(0, 0.05)
    return np.asarray(outline * (1 - front - back)[:, None])


def _fissure(rng: np.random.Generator, slice_: Slice, by: float, *, whole: bool) -> None:
    """Draw the gap between the hemispheres, grey on both sides."""
    spans = [(-1.0, 1.0)] if whole else [(-1.0, -0.45), (0.5, 1.0)]
    width = rng.uniform(0.006, 0.025) if chance(rng, 0.75) else rng.uniform(0.02, 0.05)
    for start, end in spans:
        y = np.linspace(start, end, 5) * by
        line = smooth_curve(np.stack([rng.normal(0, 0.012, 5), y], axis=1), closed=False)
        slice_.paint(slice_.canvas.stroke(line, width + 0.07), "grey", 0.7)
        slice_.paint(slice_.canvas.stroke(line, width), "fluid", rng.uniform(0.5, 1.0))


def _ventricles(rng: np.random.Generator, slice_: Slice, bx: float, by: float, gap: float) -> None:
    """Draw the lateral ventricles and the grey nuclei next to them."""
    canvas, size = slice_.canvas, rng.uniform(0.7, 1.3) * (1 + 5 * gap)
    thickness = 0.05 * size
    total = np.zeros(canvas.shape, np.float32)
    for side in (-1, 1):
        for centre, radii in (  # thalamus, caudate, putamen
            ((0.2, 0.12), (0.13, 0.17)),
            ((0.26, -0.22), (0.07, 0.13)),
            ((0.45, -0.05), (0.09, 0.22)),
        ):
            nucleus = canvas.fill(
                ellipse((side * centre[0] * bx, centre[1] * by), radii, side * -0.3, rng=rng)
            )
            slice_.paint(blur(nucleus, 0.02 * canvas.scale), "grey", rng.uniform(0.4, 0.9))
        front = smooth_curve(
            jitter([(0.22 * size, -0.42), (0.1, -0.25), (0.08, -0.05)], rng, 0.02)
            * (side * bx, by),
            closed=False,
        )
        total = np.maximum(
            total, canvas.stroke(front, np.linspace(2.2, 0.8, len(front)) * thickness)
        )
        if chance(rng, 0.75):
            back = smooth_curve(
                jitter([(0.1, 0.05), (0.28, 0.3), (0.36 * size, 0.5), (0.3, 0.62)], rng, 0.02)
                * (side * bx, by),
                closed=False,
            )
            total = np.maximum(
                total, canvas.stroke(back, np.linspace(0.8, 2.4, len(back)) * thickness)
            )
    third = canvas.stroke(np.array([[0, -0.05], [0, 0.1], [0, 0.2]]) * by, 0.03 * size)
    slice_.paint_part("ventricles", np.maximum(total, third), "fluid")


def _midbrain(rng: np.random.Generator, slice_: Slice, by: float) -> None:
    """Draw the brain stem in its cistern and, behind it, the top of the cerebellum."""
    canvas = slice_.canvas
    y = rng.uniform(-0.05, 0.12) * by
    cistern = canvas.fill(
        ellipse((0, y), (rng.uniform(0.2, 0.3), rng.uniform(0.18, 0.28)), rng=rng, wobble=0.15)
    )
    slice_.paint(cistern, "fluid", rng.uniform(0.6, 1.0))
    if chance(rng, 0.6):
        cerebellum = canvas.fill(
            ellipse((0, y + 0.45 * by), (rng.uniform(0.25, 0.5), 0.3 * by), rng=rng, wobble=0.06)
        )
        draw_cerebellum(rng, slice_, cerebellum)
        slice_.legend.add("cerebellum", "part", cerebellum)
    stem = canvas.fill(ellipse((0, y + 0.02), (0.19, 0.15), rng=rng, wobble=0.08))
    slice_.paint(stem, "white", 0.7)
    aqueduct = canvas.fill(ellipse((0, y + 0.11), (0.025, 0.02)))
    slice_.paint(aqueduct, "fluid")


def _frontal_sinus(rng: np.random.Generator, slice_: Slice, ry: float) -> None:
    for side in (-1, 1):
        hole = ellipse(
            (side * rng.uniform(0.05, 0.2), -ry + 0.1),
            (rng.uniform(0.06, 0.16), rng.uniform(0.03, 0.07)),
            rng=rng,
            wobble=0.1,
        )
        slice_.paint(slice_.canvas.fill(hole), "air")
