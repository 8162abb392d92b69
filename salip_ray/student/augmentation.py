"""Random changes of training images, so that a network learns the organ and not the scanner.

Appearance: gamma, uneven brightness, contrast, inversion, blur, coarse resolution, speckle, noise
and flat cut-outs. Geometry: rotation, scale, stretch and shift. Ranges are wider than in real
images on purpose: labels are often made on images of one source, and used on images of others.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.schema import Image
from salip_ray.student.targets import IGNORED, Target

FloatImage = npt.NDArray[np.float32]  #: grey levels 0..1, [h, w] or [h, w, 3]
Matrix = npt.NDArray[np.float64]


def augmented(picture: Image, target: Target, rng: np.random.Generator) -> tuple[Image, Target]:
    """Return a random variant of a square image [s, s, 3] and its target [s, s].

    Never mirrored, because left and right are different organs. Pixels from outside of the image
    are black and ignored. Cut-outs keep their target: the organ continues under a marker.
    """
    size = picture.shape[0]
    matrix = _transform(size, rng)
    picture = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]
    target = cv2.warpAffine(  # type: ignore[assignment]
        target, matrix, (size, size), flags=cv2.INTER_NEAREST, borderValue=IGNORED
    )
    light = vary_appearance(picture.astype(np.float32) / np.float32(255), rng)
    return np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8), target


def vary_appearance(image: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Change grey levels 0..1 as scanners, windows and file formats do; the result may exceed it.

    Args:
        image: float32 [h, w] or [h, w, 3]; all channels change alike.
        rng: decides the changes; the same state gives the same image.
    """
    height, width = image.shape[:2]
    if rng.random() < 0.7:
        image = image ** np.float32(np.exp(rng.normal(0.0, 0.35)))
    if rng.random() < 0.5:
        field = cv2.resize(
            rng.normal(0.0, 1.0, (3, 3)).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        strength = np.float32(rng.uniform(0.05, 0.3))
        image = image * _like(np.exp(strength * (field - field.max() / 2)), image)
    if rng.random() < 0.7:
        image = image * np.float32(rng.uniform(0.5, 1.15)) + np.float32(rng.normal(0.0, 0.05))
    if rng.random() < 0.04:
        image = image.max() - image
    if rng.random() < 0.3:
        image = _float(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8)))
    if rng.random() < 0.25:
        coarse = rng.uniform(0.3, 0.8)
        small = cv2.resize(image, None, fx=coarse, fy=coarse, interpolation=cv2.INTER_AREA)
        image = _float(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    if rng.random() < 0.3:
        speckle = _like(_grain(height, width, rng), image)
        image = image * (1.0 + np.float32(rng.uniform(0.05, 0.35)) * speckle)
    if rng.random() < 0.4:
        noise = _like(_grain(height, width, rng), image)
        image = image + np.float32(rng.uniform(0.005, 0.05)) * noise
    if rng.random() < 0.25:
        image = _cut_out(image, rng)
    return _float(image)


def _transform(size: int, rng: np.random.Generator) -> Matrix:
    """Draw the 2x3 matrix of a rotation, a scale, a stretch and a shift."""
    angle, scale = np.deg2rad(rng.normal(0.0, 8.0)), np.exp(rng.uniform(-0.2, 0.3))
    stretch = np.exp(rng.normal(0.0, 0.08))
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array(((cos, -sin), (sin, cos))) @ np.diag((scale * stretch, scale / stretch))
    middle = np.full(2, size / 2)
    shift = rng.normal(0.0, 0.06, 2) * size
    return np.column_stack((linear, middle + shift - linear @ middle))


def _float(image: npt.NDArray[Any]) -> FloatImage:
    return image.astype(np.float32, copy=False)


def _like(field: FloatImage, image: FloatImage) -> FloatImage:
    """Return a field [h, w] with as many axes as the image."""
    return field[..., None] if image.ndim == 3 else field


def _grain(height: int, width: int, rng: np.random.Generator) -> FloatImage:
    """Draw unit normal noise with grains of one to three pixels."""
    grain = rng.integers(1, 4)
    coarse = rng.standard_normal((-(-height // grain), -(-width // grain)), dtype=np.float32)
    return _float(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


def _cut_out(image: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Draw one to three small rectangles in a flat grey: markers, devices, text fields."""
    height, width = image.shape[:2]
    image = image.copy()
    for _ in range(rng.integers(1, 4)):
        high, wide = (rng.uniform(0.03, 0.2, 2) * (height, width)).astype(int) + 1
        top, left = rng.integers(0, height - high), rng.integers(0, width - wide)
        level = 0.0 if rng.random() < 0.6 else rng.random()
        image[top : top + high, left : left + wide] = level
    return image
