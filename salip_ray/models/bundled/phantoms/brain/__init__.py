"""Axial MRI slices through a head, from the base of the skull to the crown.

Outlines use units of about half a head: midline at x = 0, forehead near y = -0.95, back of the
head near y = 0.95.
"""

from __future__ import annotations

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import (
    Image,
    chance,
    expose,
    image_shape,
    pose,
    to_rgb,
    view,
    wear,
    write_text,
)
from salip_ray.models.bundled.phantoms.brain.base import draw_base
from salip_ray.models.bundled.phantoms.brain.outside import draw_outside
from salip_ray.models.bundled.phantoms.brain.slice import Slice
from salip_ray.models.bundled.phantoms.brain.vault import draw_vault
from salip_ray.models.bundled.phantoms.phantom import Structure
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field, Warp
from salip_ray.models.bundled.phantoms.texture import blur, fractal_noise, smooth_noise

__all__ = ["draw_brain"]

# Typical brightness of tissues by weighting; every phantom moves them at random.
_TISSUES = ("air", "fat", "muscle", "bone", "marrow", "fluid", "grey", "white", "eye")
_T1 = (0.02, 0.95, 0.45, 0.08, 0.6, 0.17, 0.5, 0.72, 0.25)
_T2 = (0.02, 0.65, 0.25, 0.06, 0.4, 0.95, 0.55, 0.4, 0.95)
_FLAIR = (0.02, 0.55, 0.3, 0.06, 0.35, 0.12, 0.6, 0.48, 0.15)
_DENSITY = (0.02, 0.75, 0.5, 0.08, 0.45, 0.6, 0.75, 0.6, 0.6)


def draw_brain(
    rng: np.random.Generator, size: int, *, target: bool = True
) -> tuple[Image, tuple[Structure, ...]]:
    """Draw one brain phantom: RGB image [H, W, 3] and its structures.

    Without `target` it is a slice of the same volume that misses the brain.
    """
    level = rng.choice(
        ["neck", "base", "middle", "ventricles", "upper", "crown"],
        p=[0.09, 0.17, 0.17, 0.3, 0.17, 0.1],
    )
    sideways = chance(rng, 0.35)  # volumes are sliced in any orientation
    aspect = rng.uniform(0.78, 1.05)
    shape = image_shape(size, 1 / aspect if sideways else aspect)
    canvas = draw_pose(rng, shape, sideways)
    slice_ = Slice(canvas, draw_weighting(rng), np.zeros(shape, np.float32))
    slice_.signal += np.float32(slice_.tissue["air"])

    if not target:
        draw_outside(rng, slice_)
        return scan(rng, slice_, None)
    if level in ("neck", "base"):
        brain = draw_base(rng, slice_, with_temporal_lobes=level == "base")
    else:
        brain = draw_vault(rng, slice_, level)
    slice_.legend.add("brain", "organ", brain)
    return scan(rng, slice_, brain)


def draw_pose(rng: np.random.Generator, shape: tuple[int, int], sideways: bool) -> Canvas:
    """Draw where a head lies on an image of `shape` [H, W]."""
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


def draw_weighting(rng: np.random.Generator) -> dict[str, float]:
    """Draw the brightness of each tissue, 0..1.1."""
    kinds = (_T1, _T2, _FLAIR, _DENSITY)
    values = np.array(kinds[rng.choice(4, p=[0.6, 0.16, 0.12, 0.12])])
    values = values + rng.normal(0, 0.07, len(values))
    if chance(rng, 0.1):
        values = rng.uniform(0, 1, len(values))
        values[0] = rng.uniform(0, 0.1)
    return dict(zip(_TISSUES, np.clip(values, 0.0, 1.1).tolist(), strict=True))


def scan(
    rng: np.random.Generator, slice_: Slice, brain: Field | None
) -> tuple[Image, tuple[Structure, ...]]:
    """Acquire a painted slice: RGB image [H, W, 3] and its visible structures.

    Some volumes are skull-stripped to `brain`, the coverage [H, W]; None is never stripped.
    """
    shape, scale = slice_.canvas.shape, slice_.canvas.scale
    signal = slice_.signal + np.float32(rng.uniform(0, 0.04)) * fractal_noise(
        rng, shape, 0.05 * scale, 3
    )
    if chance(rng, 0.1) and brain is not None:  # a skull-stripped volume
        signal = signal * brain
        slice_.legend.drop("head outline", "skull", "eye")
    signal = blur(signal, rng.uniform(0.3, 1.8) * max(shape) / 256)
    bias = np.exp(np.float32(rng.uniform(0, 0.25)) * smooth_noise(rng, shape, 1.2 * scale))
    shown = view(rng, shape, bars=0.15, tilt=0.0)
    # One very bright vessel or fat layer leaves all else dim.
    headroom = 0.9 if chance(rng, 0.4) else 0.15
    image = expose(
        rng, signal * bias, shown, gamma=(0.0, 0.25), noise=0.04, clip=1.0, headroom=headroom
    )
    if chance(rng, 0.06):
        image = 1 - image
    image[~shown] = 0
    picture = (image * 255).astype(np.uint8)
    if chance(rng, 0.12):
        write_text(rng, picture, int(rng.integers(1, 4)))
    return to_rgb(rng, wear(rng, picture)), slice_.legend.structures(shown)
