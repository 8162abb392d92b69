"""The slice that tissues are painted into, and the textures of brain tissue."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.phantom import Legend
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field, as_field, jitter, smooth_curve
from salip_ray.models.bundled.phantoms.texture import folds, fractal_noise, smooth_noise


@dataclass
class Slice:
    """The picture so far: tissues painted one over the other."""

    canvas: Canvas
    tissue: dict[str, float]
    signal: Field
    legend: Legend = field(default_factory=Legend)

    def paint(self, coverage: Field, tissue: str, strength: float = 1.0) -> None:
        """Replace what lies under `coverage` by `tissue`."""
        self.signal += (np.float32(self.tissue[tissue]) - self.signal) * (
            coverage * np.float32(strength)
        )

    def paint_part(self, name: str, coverage: Field, tissue: str) -> None:
        """Paint a part of the brain and name it."""
        self.paint(coverage, tissue)
        self.legend.add(name, "part", coverage)

    def paint_field(self, coverage: Field, value: Field) -> None:
        """Replace what lies under `coverage` by the field `value`."""
        self.signal += (value - self.signal) * coverage


def draw_cortex(
    rng: np.random.Generator, slice_: Slice, brain: Field, level: str, bx: float, by: float
) -> None:
    """Draw the cortex: sulci from the hull inwards, grey matter along them, white inside."""
    shape, scale = slice_.canvas.shape, slice_.canvas.scale
    depth = depth_within(brain, scale)
    fold = _sulci(rng, slice_.canvas, depth, meander=level in ("upper", "crown"))
    reach = rng.uniform(0.3, 0.7) if level in ("upper", "crown") else rng.uniform(0.15, 0.45)
    inward = np.clip(1 - depth / np.float32(reach), 0, 1)
    sulcus = (
        np.float32(rng.uniform(0.02, 0.2) if chance(rng, 0.7) else rng.uniform(0.2, 0.4)) * inward
    )  # wide where the brain has shrunk
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
    slice_.legend.add("white matter", "part", (is_white > 0.5) & (brain > 0.5))
    if level in ("middle", "ventricles"):
        for side in (-1, 1):  # the Sylvian fissure and the insula behind it
            knots = [(0.92, -0.22), (0.7, -0.1), (0.58, -0.02), (0.62, 0.15)]
            line = smooth_curve(jitter(knots, rng, 0.03) * (side * bx, by), closed=False)
            slice_.paint(slice_.canvas.stroke(line, 0.1) * brain, "grey", 0.8)
            slice_.paint(slice_.canvas.stroke(line, rng.uniform(0.01, 0.05)) * brain, "fluid")


def _sulci(rng: np.random.Generator, canvas: Canvas, depth: Field, *, meander: bool) -> Field:
    """Draw a field that is zero along sulci: radial ones from the hull, or a labyrinth."""
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
    return as_field(np.minimum(radial, labyrinth + np.float32(rng.uniform(0.1, 1.0))))


def depth_within(coverage: Field, scale: float) -> Field:
    """Return the distance to the edge of `coverage`, in units of `scale` pixels; 0 outside."""
    distance = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return as_field(distance / np.float32(scale))


def draw_cerebellum(rng: np.random.Generator, slice_: Slice, cerebellum: Field) -> None:
    """Draw the fine leaves of the cerebellum around a white tree."""
    canvas = slice_.canvas
    shape, scale, tissue = canvas.shape, canvas.scale, slice_.tissue
    depth = depth_within(cerebellum, scale)
    bend = 0.03 * smooth_noise(rng, shape, scale * 0.2)
    leaves = np.sin((depth + bend) * np.float32(2 * np.pi / rng.uniform(0.045, 0.08)))
    value = np.float32(tissue["grey"]) + np.float32(rng.uniform(0.1, 0.5)) * leaves * np.float32(
        (tissue["fluid"] - tissue["grey"]) * 0.5
    )
    core = np.clip((depth - np.float32(rng.uniform(0.12, 0.2))) * 20, 0, 1)
    value += core * np.float32(rng.uniform(0.4, 1.0) * (tissue["white"] - tissue["grey"]))
    slice_.paint_field(cerebellum, value)
