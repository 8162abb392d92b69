"""Random fields: smooth noise, folds, speckle and blur.

Noise is drawn small and upsampled, which is much faster than filtering white noise.
All fields are float32 [H, W].
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from salip_ray.models.bundled.phantoms.shapes import Field, as_field


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: float | tuple[float, float]
) -> Field:
    """Draw noise of zero mean and unit deviation, smooth over `cell` pixels (rows, columns)."""
    cell_y, cell_x = cell if isinstance(cell, tuple) else (cell, cell)
    height, width = shape
    rows = max(4, math.ceil(height / max(cell_y, 1.0)) + 3)
    columns = max(4, math.ceil(width / max(cell_x, 1.0)) + 3)
    small = rng.standard_normal((rows, columns), dtype=np.float32)
    # Cropping one cell a side keeps the upsampling's border replication out of sight.
    big = as_field(
        cv2.resize(
            small,
            (round(columns * max(cell_x, 1.0)), round(rows * max(cell_y, 1.0))),
            interpolation=cv2.INTER_CUBIC,
        )
    )
    top = (big.shape[0] - height) // 2 if big.shape[0] > height else 0
    left = (big.shape[1] - width) // 2 if big.shape[1] > width else 0
    field = big[top : top + height, left : left + width]
    if field.shape != shape:
        field = as_field(cv2.resize(big, (width, height), interpolation=cv2.INTER_CUBIC))
    return standardise(field)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int = 3
) -> Field:
    """Draw a sum of smooth noises, each half as coarse and 0.6 as strong as the one before."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += np.float32(0.6**octave) * smooth_noise(rng, shape, max(cell / 2**octave, 1.0))
    return standardise(total)


def folds(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Field:
    """Draw a distance-like field 0..1+, zero along meandering curves about `cell` pixels apart.

    Level sets of band-passed noise meander as sulci do.
    """
    noise = smooth_noise(rng, shape, cell) + 0.35 * smooth_noise(rng, shape, cell / 2)
    return np.abs(standardise(noise - blur(noise, 1.2 * cell)))


def speckle(rng: np.random.Generator, shape: tuple[int, int], grain: tuple[float, float]) -> Field:
    """Draw ultrasound speckle (Rayleigh amplitude, mean 1), `grain` in pixels (y, x)."""
    real, imaginary = smooth_noise(rng, shape, grain), smooth_noise(rng, shape, grain)
    return cv2.magnitude(real, imaginary) * np.float32(1 / math.sqrt(math.pi / 2))


def blur(field: Field, sigma: float) -> Field:
    """Apply a Gaussian blur; a wide one works on a smaller copy."""
    if sigma < 0.2:
        return field
    if sigma <= 4:
        return as_field(cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))
    height, width = field.shape
    factor = max(1.0, sigma / 2)
    small = cv2.resize(
        field,
        (max(4, round(width / factor)), max(4, round(height / factor))),
        interpolation=cv2.INTER_AREA,
    )
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    return as_field(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def standardise(field: Field) -> Field:
    """Scale to zero mean and unit deviation."""
    mean, deviation = cv2.meanStdDev(field)
    return (field - np.float32(mean[0, 0])) * np.float32(1 / max(float(deviation[0, 0]), 1e-6))
