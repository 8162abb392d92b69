"""Random changes of a phantom, so that a network learns the organ and not the generator.

Geometry: flips, rotation, stretch, zoom, and the aspect of the image, because real images have any
aspect and SAM pads them to a square. Appearance: gamma, inversion, uneven brightness, blur,
coarse resolution, noise and speckle, black cut-outs and bars. Ranges are wider than
in real images on purpose: training never uses a real image.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.student.augmentation import FloatImage, vary_appearance
from training.bank import BitField, Grey

#: Kinds whose images may be upside down. A chest X-ray is always upright.
_ANY_WAY_UP: Collection[str] = ("brain_mri", "fetal_ultrasound")


@dataclass(frozen=True, slots=True)
class Sample:
    """An augmented phantom on SAM's square canvas.

    Attributes:
        image: float32 [S, S], grey levels 0..255; 0 beyond the content.
        labels: uint32 [S, S] bit field, 0 beyond the content.
        content: (height, width) of the image, in the upper left of the canvas; SAM pads the rest.
    """

    image: FloatImage
    labels: BitField
    content: tuple[int, int]


def augment(image: Grey, labels: BitField, kind: str, rng: np.random.Generator) -> Sample:
    """Return a random variant of a phantom [h, w]; the same state of `rng` gives the same one."""
    size = max(image.shape)
    height, width = _content(size, rng)
    warp = _warp(image.shape, (height, width), kind, rng)
    grey = cv2.warpAffine(image, warp, (width, height), flags=cv2.INTER_LINEAR)
    # OpenCV warps 16-bit channels, not 32-bit integers.
    halves = np.ascontiguousarray(labels).view(np.uint16).reshape(*labels.shape, 2)
    moved = cv2.warpAffine(halves, warp, (width, height), flags=cv2.INTER_NEAREST)
    bits: BitField = moved.view(np.uint32)[..., 0]
    look = vary_appearance(grey.astype(np.float32) / 255.0, rng)
    look, bits = _bars(look, bits, rng)

    canvas = np.zeros((size, size), np.float32)
    canvas[:height, :width] = 255.0 * np.clip(look, 0.0, 1.0)
    field = np.zeros((size, size), np.uint32)
    field[:height, :width] = bits
    return Sample(canvas, field, (height, width))


def _content(size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the height and width of an image with long side `size`; four of ten are square."""
    if rng.random() < 0.4:
        return size, size
    short = round(size * float(rng.uniform(0.6, 1.0)))
    return (short, size) if rng.random() < 0.6 else (size, short)


def _warp(
    shape: tuple[int, ...], content: tuple[int, int], kind: str, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw the 2x3 matrix from phantom to content coordinates."""
    angle = np.deg2rad(rng.normal(0.0, 8.0 if kind == "chest_xray" else 15.0))
    # From the whole phantom with black around it to one that is larger than the image.
    ratios = np.divide(content, shape)
    zoom = rng.uniform(ratios.min(), ratios.max()) * np.exp(rng.uniform(-0.2, 0.4))
    stretch = np.exp(rng.normal(0.0, 0.08))
    flip = rng.choice((-1.0, 1.0))
    upside_down = rng.choice((-1.0, 1.0)) if kind in _ANY_WAY_UP else 1.0
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array(((cos, -sin), (sin, cos))) @ np.diag(
        (zoom * stretch * flip, zoom / stretch * upside_down)
    )
    middle = np.array(shape[::-1]) / 2
    target = np.array(content[::-1]) * (0.5 + rng.normal(0.0, 0.06, 2))
    return np.column_stack((linear, target - linear @ middle))


def _bars(
    image: FloatImage, labels: BitField, rng: np.random.Generator
) -> tuple[FloatImage, BitField]:
    """Draw flat bars along some sides of one image in six, as if they were part of the file."""
    if rng.random() > 1 / 6:
        return image, labels
    height, width = image.shape
    level = 0.0 if rng.random() < 0.8 else 1.0
    image, labels = image.copy(), labels.copy()
    top, bottom = (rng.uniform(0.0, 0.12, 2) * height * (rng.random(2) < 0.5)).astype(int)
    left, right = (rng.uniform(0.0, 0.12, 2) * width * (rng.random(2) < 0.5)).astype(int)
    for side in (
        np.s_[:top],
        np.s_[height - bottom :],
        np.s_[:, :left],
        np.s_[:, width - right :],
    ):
        image[side] = level
        labels[side] = 0
    return image, labels
