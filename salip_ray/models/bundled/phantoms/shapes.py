"""Smooth outlines in anatomical coordinates, and the canvas that rasterises them.

Generators describe anatomy as curves around the origin, about one unit wide and high on each
side, x to the right and y down. A `Canvas` converts those curves to pixels. Pose, crop and zoom act
on the curves, so that no image or mask is resampled.
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
    """Return a Catmull-Rom curve through `knots`, [..., N, 2].

    It has N * steps points if closed, else (N - 1) * steps and not the last knot itself.
    """
    points = np.asarray(knots, dtype=np.float64)
    if closed:
        around = np.concatenate([points[..., -1:, :], points, points[..., :2, :]], axis=-2)
    else:
        before = 2 * points[..., :1, :] - points[..., 1:2, :]
        after = 2 * points[..., -1:, :] - points[..., -2:-1, :]
        around = np.concatenate([before, points, after], axis=-2)
    last = around.shape[-2] - 3
    windows = np.stack([around[..., i : i + last, :] for i in range(4)], axis=-2)
    curve = _catmull_rom(steps) @ windows  # [..., last, steps, 2]
    return np.asarray(curve.reshape(*points.shape[:-2], last * steps, 2))


def _catmull_rom(steps: int) -> npt.NDArray[np.float64]:
    """Return weights [steps, 4] of the four knots around a span."""
    t = np.arange(steps) / steps
    powers = np.stack([np.ones(steps), t, t**2, t**3], axis=1)
    basis = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    return np.asarray(powers @ basis)


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
    """Return an ellipse turned by `angle` radians: [steps, 2].

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
    """Move each knot by a normal step of standard deviation `size`: [N, 2]."""
    points = np.asarray(knots, dtype=np.float64)
    return np.asarray(points + rng.normal(0, size, points.shape))


@dataclass(frozen=True)
class Warp:
    """A smooth displacement of anatomical coordinates: a sum of plane waves.

    All structures of a phantom share one, so that neighbours stay neighbours.
    """

    waves: Points  # [K, 2], radians per unit
    phases: npt.NDArray[np.float64]  # [K]
    steps: Points  # [K, 2], units

    @classmethod
    def draw(cls, rng: np.random.Generator, size: float, count: int = 5) -> Warp:
        """Draw a warp of `count` waves, each moving points by about `size` units at most."""
        waves = rng.normal(0, 2.2, (count, 2))
        return cls(
            waves,
            rng.uniform(0, 2 * np.pi, count),
            rng.normal(0, size, (count, 2)) / (1 + np.linalg.norm(waves, axis=1, keepdims=True)),
        )

    def __call__(self, points: Points) -> Points:
        """Return the displaced `points`, [..., 2]."""
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

    def to_pixels(self, points: Points) -> Points:
        """Convert anatomical (x, y) to pixel (x, y): [..., 2]."""
        if self.warp is not None:
            points = self.warp(points)
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2])

    def fill(self, *outlines: Points) -> Field:
        """Return coverage 0..1 [H, W] of the union of the closed outlines."""
        sheet = np.zeros(self.shape, np.uint8)
        for outline in outlines:
            pixels = _fixed_point(self.to_pixels(outline))
            cv2.fillPoly(sheet, [pixels], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return coverage(sheet)

    def stroke(self, curves: Points, width: float | npt.ArrayLike) -> Field:
        """Return coverage 0..1 [H, W] of open curves [..., N, 2].

        `width` is in units and is broadcast to [..., N].
        """
        sheet = np.zeros(self.shape, np.uint8)
        self.stroke_onto(sheet, curves, width)
        return coverage(sheet)

    def stroke_onto(
        self,
        sheet: npt.NDArray[np.uint8],
        curves: Points,
        width: float | npt.ArrayLike,
        value: int = 255,
    ) -> None:
        """Draw as `stroke` does, into `sheet` (uint8 [H, W]) and with `value`."""
        pixels = self.to_pixels(curves)
        along = np.empty_like(pixels)
        along[..., 1:-1, :] = pixels[..., 2:, :] - pixels[..., :-2, :]
        along[..., 0, :] = pixels[..., 1, :] - pixels[..., 0, :]
        along[..., -1, :] = pixels[..., -1, :] - pixels[..., -2, :]
        along /= np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-6)[..., None]
        # At least a pixel wide: a thinner ribbon would break into dots.
        half = np.maximum(np.asarray(width, dtype=np.float64) * (self.scale / 2), 0.5)
        offset = along[..., ::-1] * (1.0, -1.0) * half[..., None]
        ribbons = np.concatenate([pixels + offset, (pixels - offset)[..., ::-1, :]], axis=-2)
        for ribbon in _fixed_point(ribbons).reshape(-1, ribbons.shape[-2], 2):
            cv2.fillPoly(sheet, [ribbon], value, cv2.LINE_AA, _SUBPIXEL_BITS)

    def grid(self) -> tuple[Field, Field]:
        """Return anatomical x and y of each pixel, warp left out: two fields [H, W]."""
        inverse = cv2.invertAffineTransform(self.matrix).astype(np.float32)
        rows, columns = np.indices(self.shape, dtype=np.float32)
        x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
        y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
        return x, y


def as_field(array: npt.ArrayLike) -> Field:
    """Return `array` as float32; copy it only if it has another type."""
    return np.asarray(array, dtype=np.float32)


def coverage(sheet: npt.NDArray[np.uint8]) -> Field:
    """Convert a drawn sheet 0..255 to coverage 0..1."""
    return as_field(sheet / np.float32(255))


def _fixed_point(pixels: Points) -> npt.NDArray[np.int32]:
    """Convert pixel coordinates to cv2's integers with fractional bits."""
    return np.asarray(np.round(pixels * 2**_SUBPIXEL_BITS), dtype=np.int32)
