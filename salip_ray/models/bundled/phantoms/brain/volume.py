"""A head as a stack of axial slices, from the neck to the scalp above the brain.

One head has one pose, one contrast and one acquisition. Each level of the anatomy is drawn with the
same random numbers in all its slices, and only its size changes from slice to slice, so that
neighbouring slices resemble each other. The first and the last slices show no brain.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import Image, image_shape
from salip_ray.models.bundled.phantoms.brain import draw_pose, draw_weighting, scan
from salip_ray.models.bundled.phantoms.brain.base import draw_base
from salip_ray.models.bundled.phantoms.brain.outside import draw_outside
from salip_ray.models.bundled.phantoms.brain.slice import Slice
from salip_ray.models.bundled.phantoms.brain.vault import draw_vault
from salip_ray.models.bundled.phantoms.phantom import Structure
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field

# Where each level begins along the head, and how large it is drawn against the widest one.
_LEVELS = (
    ("neck", 0.0, 1.0),
    ("face", 0.08, 1.0),
    ("cerebellum", 0.2, 1.0),
    ("base", 0.3, 1.0),
    ("middle", 0.42, 0.98),
    ("ventricles", 0.52, 1.0),
    ("upper", 0.7, 0.9),
    ("crown", 0.8, 0.7),
    ("scalp", 0.93, 0.4),
)
_WIDEST = 0.55  # of the head's height


def draw_brain_volume(
    entropy: list[int], size: int, slices: int
) -> list[tuple[Image, tuple[Structure, ...]]]:
    """Draw a head, from its lowest slice to its highest: RGB images [H, W, 3] and structures.

    Args:
        entropy: the seed.
        size: of the longer side of a slice, in pixels.
        slices: their number.
    """
    rng = _stream(entropy, 0)
    shape = image_shape(size, float(rng.uniform(0.78, 1.05)))
    canvas, tissue = draw_pose(rng, shape, sideways=False), draw_weighting(rng)
    tilt = float(rng.uniform(-0.03, 0.03))  # the ends differ from head to head
    return [
        _draw_slice(entropy, canvas, tissue, (number + 0.5) / slices + tilt)
        for number in range(slices)
    ]


def _draw_slice(
    entropy: list[int], canvas: Canvas, tissue: dict[str, float], height: float
) -> tuple[Image, tuple[Structure, ...]]:
    position = max(n for n, (_, start, _) in enumerate(_LEVELS) if start <= height or n == 0)
    level, start, drawn = _LEVELS[position]
    matrix = canvas.matrix.copy()
    if height > _WIDEST:
        matrix[:, :2] *= np.sqrt(max(0.08, 1 - ((height - _WIDEST) / 0.46) ** 2)) / drawn
    else:  # of equal area: the scale decides how many random numbers a texture takes
        wider = 1 + 0.8 * (height - start)
        matrix[:, :2] *= np.array([wider, 1 / wider])
    signal = np.full(canvas.shape, tissue["air"], np.float32)
    slice_ = Slice(Canvas(canvas.shape, matrix, canvas.warp), tissue, signal)
    rng, brain = _stream(entropy, 2 + position), np.zeros(canvas.shape, np.float32)
    if level in ("neck", "face", "scalp"):
        draw_outside(rng, slice_, where=level)
    else:
        brain = _draw_level(rng, slice_, level)
        slice_.legend.add("brain", "organ", brain)
    # The canvas of the head, not of the slice, so that all slices are acquired alike.
    return scan(_stream(entropy, 1), replace(slice_, canvas=canvas), brain)


def _draw_level(rng: np.random.Generator, slice_: Slice, level: str) -> Field:
    if level in ("cerebellum", "base"):
        return draw_base(rng, slice_, with_temporal_lobes=level == "base")
    return draw_vault(rng, slice_, level)


def _stream(entropy: list[int], part: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*entropy, part])))
