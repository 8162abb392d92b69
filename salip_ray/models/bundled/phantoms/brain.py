"""Axial slices through a head as MRI shows them, from the neck's end to the crown.

Outlines use units of about half a head: midline at x = 0, forehead near y = -0.95, back of the
head near y = 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    view,
    wear,
    write_text,
)
from .phantom import Role, Structure
from .shapes import Canvas, Field, Mask, Points, Warp, ellipse, jitter, smooth_curve
from .texture import blur, folds, fractal_noise, smooth_noise

# Typical brightness of tissues by weighting; every phantom moves them at random.
_TISSUES = ("air", "fat", "muscle", "bone", "marrow", "fluid", "grey", "white", "eye")
_T1 = (0.02, 0.95, 0.45, 0.08, 0.6, 0.17, 0.5, 0.72, 0.25)
_T2 = (0.02, 0.65, 0.25, 0.06, 0.4, 0.95, 0.55, 0.4, 0.95)
_FLAIR = (0.02, 0.55, 0.3, 0.06, 0.35, 0.12, 0.6, 0.48, 0.15)
_DENSITY = (0.02, 0.75, 0.5, 0.08, 0.45, 0.6, 0.75, 0.6, 0.6)


@dataclass
class _Slice:
    """The picture so far: tissues painted one over the other."""

    canvas: Canvas
    tissue: dict[str, float]
    signal: Field
    drawn: list[tuple[str, Role, Field | Mask]] = field(default_factory=list)

    def paint(self, coverage: Field, tissue: str, strength: float = 1.0) -> None:
        """Replace what lies under `coverage` by `tissue`."""
        self.signal += (np.float32(self.tissue[tissue]) - self.signal) * (
            coverage * np.float32(strength)
        )

    def paint_field(self, coverage: Field, value: Field) -> None:
        """Replace what lies under `coverage` by the field `value`."""
        self.signal += (value - self.signal) * coverage


def draw_brain(rng: np.random.Generator, size: int) -> tuple[Image, tuple[Structure, ...]]:
    """One brain phantom: RGB image [H, W, 3] and its structures."""
    level = rng.choice(
        ["neck", "base", "middle", "ventricles", "upper", "crown"],
        p=[0.09, 0.17, 0.17, 0.3, 0.17, 0.1],
    )
    sideways = chance(rng, 0.35)  # volumes are sliced in any orientation
    aspect = rng.uniform(0.78, 1.05)
    shape = image_shape(size, 1 / aspect if sideways else aspect)
    canvas = _place(rng, shape, sideways)
    slice_ = _Slice(canvas, _weighting(rng), np.zeros(shape, np.float32))
    slice_.signal += np.float32(slice_.tissue["air"])

    if level in ("neck", "base"):
        brain = _draw_base(rng, slice_, with_temporal_lobes=level == "base")
    else:
        brain = _draw_vault(rng, slice_, level)
    slice_.drawn.append(("brain", "organ", brain))
    return _scan(rng, slice_, brain)


def _place(rng: np.random.Generator, shape: tuple[int, int], sideways: bool) -> Canvas:
    height, width = shape
    across, along = (height, width) if sideways else (width, height)
    fill = rng.uniform(0.85, 1.1)
    scale = min(across / 1.56, along / 1.96) * fill
    angle = rng.normal(0, 0.08)
    if sideways:
        angle += np.pi / 2 * rng.choice([-1, 1])
    elif chance(rng, 0.15):
        angle += np.pi
    centre = (width * (0.5 + rng.normal(0, 0.02)), height * (0.5 + rng.normal(0, 0.02)))
    stretch = float(np.exp(rng.normal(0, 0.06)))
    matrix = pose(centre, scale, angle=angle, stretch=stretch, mirror=chance(rng, 0.5))
    return Canvas(shape, matrix, Warp.draw(rng, 0.04))


def _weighting(rng: np.random.Generator) -> dict[str, float]:
    kinds = (_T1, _T2, _FLAIR, _DENSITY)
    values = np.array(kinds[rng.choice(4, p=[0.6, 0.16, 0.12, 0.12])])
    values = values + rng.normal(0, 0.07, len(values))
    if chance(rng, 0.1):
        values = rng.uniform(0, 1, len(values))
        values[0] = rng.uniform(0, 0.1)
    return dict(zip(_TISSUES, np.clip(values, 0.0, 1.1).tolist(), strict=True))


# --- slices through the vault: scalp, skull, fluid, folded brain -----------------------------


def _draw_vault(rng: np.random.Generator, slice_: _Slice, level: str) -> Field:
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
    _folded(rng, slice_, brain, level, bx, by)
    if level == "middle":
        _midbrain(rng, slice_, bx, by)
    elif level == "ventricles":
        _ventricles(rng, slice_, bx, by, gap)
    elif level == "upper" and chance(rng, 0.4):
        for side in (-1, 1):
            _paint_part(
                slice_,
                "ventricles",
                canvas.fill(
                    ellipse((side * 0.12 * bx, 0), (0.05 * bx, rng.uniform(0.1, 0.3) * by))
                ),
                "fluid",
            )
    _fissure(rng, slice_, by, whole=level in ("upper", "crown"))
    slice_.drawn += [
        ("head outline", "whole", head),
        ("skull", "part", outside * (1 - inside)),
    ]
    return brain


def _brain_outline(rng: np.random.Generator, bx: float, by: float) -> Points:
    """The brain's hull: an oval with dents at the midline, front and back."""
    outline = ellipse((0, 0), (bx, by), rng=rng, wobble=0.012, squareness=rng.uniform(2.0, 2.3))
    angle = np.arctan2(outline[:, 1], outline[:, 0])
    front = np.exp(-(((angle + np.pi / 2) / 0.1) ** 2)) * rng.uniform(0, 0.04)
    back = np.exp(-(((angle - np.pi / 2) / 0.1) ** 2)) * rng.uniform(0, 0.05)
    return np.asarray(outline * (1 - front - back)[:, None])


def _folded(
    rng: np.random.Generator, slice_: _Slice, brain: Field, level: str, bx: float, by: float
) -> None:
    """Cortex: sulci that cut in from the hull, grey matter along them, white matter inside."""
    shape, scale = slice_.canvas.shape, slice_.canvas.scale
    depth = cv2.distanceTransform((brain > 0.5).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(
        scale
    )
    fold = _sulci(rng, slice_.canvas, depth, meander=level in ("upper", "crown"))
    reach = rng.uniform(0.3, 0.7) if level in ("upper", "crown") else rng.uniform(0.15, 0.45)
    inward = np.clip(1 - depth / np.float32(reach), 0, 1)
    sulcus = np.float32(rng.uniform(0.02, 0.2) if chance(rng, 0.7) else rng.uniform(0.2, 0.4)) * inward  # wide where the brain has shrunk
    ribbon = sulcus + np.float32(rng.uniform(0.35, 0.8)) * np.sqrt(inward)
    rim = np.float32(rng.uniform(0.02, 0.05))
    sharp = np.float32(rng.uniform(5, 12))
    is_white = np.clip((fold - ribbon) * sharp + 0.5, 0, 1) * np.clip((depth - rim) * 60, 0, 1)
    is_fluid = np.clip((sulcus - fold) * sharp + 0.5, 0, 1) * (inward > 0)
    tissue = slice_.tissue
    value = np.float32(tissue["grey"]) + is_white * np.float32(tissue["white"] - tissue["grey"])
    value += (np.float32(tissue["fluid"]) - value) * is_fluid * np.float32(rng.uniform(0.5, 1.0))
    value += np.float32(rng.uniform(0, 0.02)) * fractal_noise(rng, shape, scale * 0.1, 3)
    slice_.paint_field(brain, value)
    slice_.drawn.append(("white matter", "part", (is_white > 0.5) & (brain > 0.5)))
    if level in ("middle", "ventricles"):
        for side in (-1, 1):  # the Sylvian fissure and the insula behind it
            knots = [(0.92, -0.22), (0.7, -0.1), (0.58, -0.02), (0.62, 0.15)]
            line = smooth_curve(jitter(knots, rng, 0.03) * (side * bx, by), closed=False)
            slice_.paint(slice_.canvas.stroke(line, 0.1) * brain, "grey", 0.8)
            slice_.paint(slice_.canvas.stroke(line, rng.uniform(0.01, 0.05)) * brain, "fluid")


def _sulci(
    rng: np.random.Generator, canvas: Canvas, depth: Field, *, meander: bool
) -> Field:
    """Field that is zero along sulci: radial ones that enter from the hull, or a labyrinth."""
    shape, scale = canvas.shape, canvas.scale
    labyrinth = folds(rng, shape, scale * rng.uniform(0.1, 0.16))
    if meander and chance(rng, 0.5):
        return labyrinth
    # Noise over (angle, depth), long in depth, so that its level sets run inwards.
    cells = int(rng.integers(30, 56))
    ring = rng.standard_normal((6, cells), dtype=np.float32)
    ring = np.hstack([ring[:, -2:], ring, ring[:, :3]])
    x, y = canvas.grid()
    angle = np.arctan2(y, x) / np.float32(2 * np.pi) + np.float32(0.5)
    swirl = np.float32(rng.uniform(0.2, 0.6)) * smooth_noise(rng, shape, 0.15 * scale)
    columns = angle * np.float32(cells) + swirl + 2
    rows = np.clip(depth * np.float32(rng.uniform(4, 8)), 0, 5)
    radial = np.abs(cv2.remap(ring, columns, rows, cv2.INTER_CUBIC, None, cv2.BORDER_REPLICATE))
    return np.minimum(radial, labyrinth + np.float32(rng.uniform(0.1, 1.0)))


def _fissure(rng: np.random.Generator, slice_: _Slice, by: float, *, whole: bool) -> None:
    """The gap between the hemispheres, grey on both sides."""
    spans = [(-1.0, 1.0)] if whole else [(-1.0, -0.45), (0.5, 1.0)]
    width = rng.uniform(0.006, 0.025) if chance(rng, 0.75) else rng.uniform(0.02, 0.05)
    for start, end in spans:
        y = np.linspace(start, end, 5) * by
        line = smooth_curve(np.stack([rng.normal(0, 0.012, 5), y], axis=1), closed=False)
        slice_.paint(slice_.canvas.stroke(line, width + 0.07), "grey", 0.7)
        slice_.paint(slice_.canvas.stroke(line, width), "fluid", rng.uniform(0.5, 1.0))


def _ventricles(
    rng: np.random.Generator, slice_: _Slice, bx: float, by: float, gap: float
) -> None:
    """Lateral ventricles and the grey nuclei beside them."""
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
                jitter(
                    [(0.1, 0.05), (0.28, 0.3), (0.36 * size, 0.5), (0.3, 0.62)], rng, 0.02
                )
                * (side * bx, by),
                closed=False,
            )
            total = np.maximum(
                total, canvas.stroke(back, np.linspace(0.8, 2.4, len(back)) * thickness)
            )
    third = canvas.stroke(np.array([[0, -0.05], [0, 0.1], [0, 0.2]]) * by, 0.03 * size)
    _paint_part(slice_, "ventricles", np.maximum(total, third), "fluid")


def _midbrain(rng: np.random.Generator, slice_: _Slice, bx: float, by: float) -> None:
    """Brain stem in its cistern and, behind it, the top of the cerebellum."""
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
        _foliate(rng, slice_, cerebellum)
        slice_.drawn.append(("cerebellum", "part", cerebellum))
    stem = canvas.fill(ellipse((0, y + 0.02), (0.19, 0.15), rng=rng, wobble=0.08))
    slice_.paint(stem, "white", 0.7)
    aqueduct = canvas.fill(ellipse((0, y + 0.11), (0.025, 0.02)))
    slice_.paint(aqueduct, "fluid")


def _frontal_sinus(rng: np.random.Generator, slice_: _Slice, ry: float) -> None:
    for side in (-1, 1):
        hole = ellipse(
            (side * rng.uniform(0.05, 0.2), -ry + 0.1),
            (rng.uniform(0.06, 0.16), rng.uniform(0.03, 0.07)),
            rng=rng,
            wobble=0.1,
        )
        slice_.paint(slice_.canvas.fill(hole), "air")


# --- slices through the base: face, eyes, cerebellum, temporal lobes -------------------------


def _draw_base(rng: np.random.Generator, slice_: _Slice, *, with_temporal_lobes: bool) -> Field:
    canvas = slice_.canvas
    head = canvas.fill(
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
    _face(rng, slice_, head)

    brain = np.zeros(canvas.shape, np.float32)
    lobes: Field | None = None
    if with_temporal_lobes:
        width = rng.uniform(0.17, 0.27)
        outlines = []
        for side in (-1, 1):
            outlines.append(
                ellipse(
                    (side * rng.uniform(0.36, 0.44), rng.uniform(-0.3, -0.1)),
                    (width, rng.uniform(0.2, 0.32)),
                    side * rng.uniform(-0.3, 0.3),
                    rng=rng,
                    wobble=0.06,
                )
            )
        if chance(rng, 0.3):  # lowest part of the frontal lobes
            outlines.append(ellipse((0, -0.62), (rng.uniform(0.08, 0.3), 0.22), squareness=2.4))
        lobes = canvas.fill(*outlines)
        casing = np.clip(blur(lobes, 0.05 * canvas.scale) * 2.2, 0, 1)
        slice_.paint(casing, "bone", rng.uniform(0.6, 1.0))
        slice_.paint(lobes, "fluid")
        _folded(rng, slice_, lobes, "base", width, 0.25)
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
    _foliate(rng, slice_, cerebellum)
    slice_.paint(stem, "white", rng.uniform(0.6, 1.0))
    if chance(rng, 0.7):
        fourth = ellipse((0, y - ry * 0.55), (rng.uniform(0.03, 0.1), rng.uniform(0.03, 0.06)))
        _paint_part(slice_, "ventricles", canvas.fill(fourth), "fluid")
    brain = np.maximum(brain, fossa)
    if lobes is not None:  # the reference runs on between lobes and stem, over the cisterns
        bridge = canvas.fill(
            ellipse((0, y - ry * 1.15), (rng.uniform(0.25, 0.45), rng.uniform(0.1, 0.2)))
        )
        _folded(rng, slice_, bridge * (1 - brain), "base", 0.3, 0.2)
        brain = np.maximum(brain, bridge)
    slice_.drawn += [
        ("head outline", "whole", head),
        ("cerebellum", "part", cerebellum),
    ]
    return brain * head


def _face(rng: np.random.Generator, slice_: _Slice, head: Field) -> None:
    """Skin, a patchwork of muscle, fat and bone, the nose's airways and the eyes."""
    canvas = slice_.canvas
    shape, scale, tissue = canvas.shape, canvas.scale, slice_.tissue
    slice_.paint(head, "fat")
    depth = cv2.distanceTransform((head > 0.5).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(scale)
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
            slice_.drawn.append(("eye", "organ", eye))


def _foliate(rng: np.random.Generator, slice_: _Slice, cerebellum: Field) -> None:
    """The cerebellum's fine leaves around a white tree."""
    canvas = slice_.canvas
    shape, scale, tissue = canvas.shape, canvas.scale, slice_.tissue
    depth = cv2.distanceTransform((cerebellum > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    depth /= np.float32(scale)
    bend = 0.03 * smooth_noise(rng, shape, scale * 0.2)
    leaves = np.sin((depth + bend) * np.float32(2 * np.pi / rng.uniform(0.045, 0.08)))
    value = np.float32(tissue["grey"]) + np.float32(rng.uniform(0.1, 0.5)) * leaves * np.float32(
        (tissue["fluid"] - tissue["grey"]) * 0.5
    )
    core = np.clip((depth - np.float32(rng.uniform(0.12, 0.2))) * 20, 0, 1)
    value += core * np.float32(rng.uniform(0.4, 1.0) * (tissue["white"] - tissue["grey"]))
    slice_.paint_field(cerebellum, value)


def _paint_part(slice_: _Slice, name: str, coverage: Field, tissue: str) -> None:
    slice_.paint(coverage, tissue)
    slice_.drawn.append((name, "part", coverage))


def _scan(
    rng: np.random.Generator, slice_: _Slice, brain: Field
) -> tuple[Image, tuple[Structure, ...]]:
    shape, scale = slice_.canvas.shape, slice_.canvas.scale
    signal = slice_.signal + np.float32(rng.uniform(0, 0.04)) * fractal_noise(
        rng, shape, 0.05 * scale, 3
    )
    drawn = slice_.drawn
    if chance(rng, 0.1):  # a skull-stripped volume
        signal = signal * brain
        drawn = [part for part in drawn if part[0] not in ("head outline", "skull", "eye")]
    signal = blur(signal, rng.uniform(0.3, 1.8) * max(shape) / 256)
    bias = np.exp(np.float32(rng.uniform(0, 0.25)) * smooth_noise(rng, shape, 1.2 * scale))
    shown = view(rng, shape, bars=0.15, tilt=0.0)
    # One very bright vessel or fat layer leaves all else dim.
    headroom = 0.9 if chance(rng, 0.4) else 0.15
    image = expose(rng, signal * bias, shown, gamma=(0.0, 0.25), noise=0.04, clip=1.0, headroom=headroom)
    if chance(rng, 0.06):
        image = 1 - image
    image[~shown] = 0
    picture = (image * 255).astype(np.uint8)
    if chance(rng, 0.12):
        write_text(rng, picture, int(rng.integers(1, 4)))
    return to_rgb(rng, wear(rng, picture)), collect(shown, drawn)
