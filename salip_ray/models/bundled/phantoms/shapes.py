"""Smooth outlines in anatomical coordinates, and the canvas that rasterises them.

Generators describe anatomy as curves around the origin, about one unit wide and high on each
side, x to the right and y down. A `Canvas` places those curves into pixels: pose, crop and
zoom act on the curves, so that no image or mask is ever resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # [N, 2] as (x, y)
Field = npt.NDArray[np.float32]  # [H, W]
Mask = npt.NDArray[np.bool_]  # [H, W]

_SUBPIXEL_BITS = 4


def smooth_curve(
    knots: Points | Sequence[Sequence[float]], *, closed: bool = True, steps: int = 8
) -> Points:
    """A Catmull-Rom curve through `knots` (x, y): [N * steps, 2] if closed, else (N - 1) * steps."""
    points = np.asarray(knots, dtype=np.float64)
    if closed:
        before, start = np.roll(points, 1, axis=0), points
        end, after = np.roll(points, -1, axis=0), np.roll(points, -2, axis=0)
    else:
        padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
        before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    before, start, end, after = (p[:, None, :] for p in (before, start, end, after))
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    return np.asarray(curve.reshape(-1, 2))


def ellipse(
    centre: tuple[float, float],
    radii: tuple[float, float],
    angle: float = 0.0,
    *,
    rng: np.random.Generator | None = None,
    wobble: float = 0.0,
    squareness: float = 2.0,
    steps: int = 72,
) -> Points:
    """An ellipse turned by `angle` radians: [steps, 2].

    `wobble` is the relative size of random bumps on the outline (it needs `rng`); `squareness`
    is the exponent of a superellipse, 2 for an ellipse and more for a boxier outline.
    """
    theta = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    cos, sin = np.cos(theta), np.sin(theta)
    radius = (np.abs(cos) ** squareness + np.abs(sin) ** squareness) ** (-1 / squareness)
    if rng is not None and wobble > 0:
        for frequency in range(2, 7):
            size = wobble * rng.normal() / (frequency - 1)
            radius = radius * (1 + size * np.cos(frequency * theta + rng.uniform(0, 2 * np.pi)))
    x, y = radii[0] * radius * cos, radii[1] * radius * sin
    return np.stack(
        [
            centre[0] + x * np.cos(angle) - y * np.sin(angle),
            centre[1] + x * np.sin(angle) + y * np.cos(angle),
        ],
        axis=1,
    )


def jitter(knots: Sequence[Sequence[float]], rng: np.random.Generator, size: float) -> Points:
    """Each knot moved by a normal step of standard deviation `size`: [N, 2]."""
    points = np.asarray(knots, dtype=np.float64)
    return np.asarray(points + rng.normal(0, size, points.shape))


@dataclass(frozen=True)
class Warp:
    """A smooth displacement of anatomical coordinates: a sum of plane waves, the same for all
    structures of one phantom, so that neighbours stay neighbours."""

    waves: Points  # [K, 2], radians per unit
    phases: npt.NDArray[np.float64]  # [K]
    steps: Points  # [K, 2], units

    @classmethod
    def draw(cls, rng: np.random.Generator, size: float, count: int = 5) -> Warp:
        waves = rng.normal(0, 2.2, (count, 2))
        return cls(
            waves,
            rng.uniform(0, 2 * np.pi, count),
            rng.normal(0, size, (count, 2)) / (1 + np.linalg.norm(waves, axis=1, keepdims=True)),
        )

    def __call__(self, points: Points) -> Points:
        return np.asarray(points + np.sin(points @ self.waves.T + self.phases) @ self.steps)


@dataclass(frozen=True)
class Canvas:
    """Places anatomical curves into an image of `shape` [H, W].

    `matrix` [2, 3] maps warped anatomical (x, y) to pixel (x, y); pixel centres are integers.
    """

    shape: tuple[int, int]
    matrix: Points
    warp: Warp | None = None
    scale: float = field(init=False)  # pixels per unit

    def __post_init__(self) -> None:
        scale = float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))
        object.__setattr__(self, "scale", scale)

    def place(self, points: Points) -> Points:
        """Anatomical (x, y) to pixel (x, y): [N, 2]."""
        if self.warp is not None:
            points = self.warp(points)
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2])

    def fill(self, *outlines: Points) -> Field:
        """Coverage 0..1 [H, W] of the union of the closed outlines."""
        canvas = np.zeros(self.shape, np.uint8)
        for outline in outlines:
            cv2.fillPoly(canvas, [self._fixed(outline)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return canvas.astype(np.float32) / np.float32(255)

    def stroke(self, curve: Points, width: float | Sequence[float]) -> Field:
        """Coverage 0..1 [H, W] of an open curve; `width` in units, one or one per point."""
        canvas = np.zeros(self.shape, np.uint8)
        self.stroke_onto(canvas, curve, width)
        return canvas.astype(np.float32) / np.float32(255)

    def stroke_onto(
        self,
        canvas: npt.NDArray[np.uint8],
        curve: Points,
        width: float | Sequence[float],
        value: int = 255,
    ) -> None:
        """Draw a stroke as `stroke` does, but into `canvas` (uint8 [H, W]) with `value`."""
        pixels = self.place(curve)
        half = np.broadcast_to(np.asarray(width, dtype=np.float64), (len(pixels),)) * (
            self.scale / 2
        )
        normals = np.gradient(pixels, axis=0)[:, ::-1] * np.array([1.0, -1.0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
        # At least a pixel wide: a thinner polygon would break into dots.
        offset = normals * np.maximum(half, 0.5)[:, None]
        ribbon = np.vstack([pixels + offset, (pixels - offset)[::-1]])
        fixed = np.round(ribbon * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], value, cv2.LINE_AA, _SUBPIXEL_BITS)

    def grid(self) -> tuple[Field, Field]:
        """Anatomical x and y of each pixel, warp left out: two fields [H, W]."""
        inverse = cv2.invertAffineTransform(self.matrix).astype(np.float32)
        rows, columns = np.indices(self.shape, dtype=np.float32)
        x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
        y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
        return x, y

    def _fixed(self, outline: Points) -> npt.NDArray[np.int32]:
        return np.round(self.place(outline) * 2**_SUBPIXEL_BITS).astype(np.int32)
