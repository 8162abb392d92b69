"""Pose, view, exposure, wear and text: from drawn anatomy to an image as archives hold it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.models.bundled.phantoms.shapes import Field, Mask, Points, as_field
from salip_ray.models.bundled.phantoms.texture import blur, smooth_noise

Image = npt.NDArray[np.uint8]  # [H, W] or [H, W, 3]

_LETTERS = "ABCDEFGHIKLMNOPRSTUVWX0123456789:./- "


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Return True with `probability`."""
    return bool(rng.random() < probability)


def image_shape(size: int, width_over_height: float) -> tuple[int, int]:
    """Draw (H, W) with longer side `size`."""
    if width_over_height >= 1:
        return max(1, round(size / width_over_height)), size
    return size, max(1, round(size * width_over_height))


def pose(
    centre: tuple[float, float],
    scale: float,
    *,
    angle: float = 0.0,
    stretch: float = 1.0,
    shear: float = 0.0,
    mirror: bool = False,
) -> Points:
    """Draw a matrix [2, 3] that puts the anatomical origin at pixel `centre` (x, y).

    `scale` is pixels per unit, `stretch` widens x against y, `angle` turns by radians.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    shape = np.array([[stretch**0.5 * (-1 if mirror else 1), shear], [0.0, stretch**-0.5]])
    return np.hstack([scale * turn @ shape, np.array(centre, dtype=np.float64)[:, None]])


def view(rng: np.random.Generator, shape: tuple[int, int], *, bars: float, tilt: float) -> Mask:
    """Draw the visible part of the frame, bool [H, W]; the rest is a bar or a film's edge.

    `bars` and `tilt` are the probabilities of letterbox bars and of a slightly turned film.
    """
    height, width = shape
    left = top = 0.0
    right, bottom = width - 1.0, height - 1.0
    if chance(rng, bars):
        sides = rng.uniform(0.01, 0.14, 4) * (rng.random(4) < 0.5)
        if chance(rng, 0.4):  # bars come in pairs if an image was made square
            sides[:2] = sides[0], sides[0]
        left, right = width * sides[0], width * (1 - sides[1]) - 1
        top, bottom = height * sides[2], height * (1 - sides[3]) - 1
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if chance(rng, tilt):
        angle = rng.normal(0, 0.03)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = corners.mean(axis=0)
        corners = (corners - middle) @ turn.T * rng.uniform(0.94, 1.02) + middle
    shown = np.zeros(shape, np.uint8)
    cv2.fillPoly(shown, [np.round(corners).astype(np.int32)], 1)
    return shown.astype(np.bool_)


def expose(
    rng: np.random.Generator,
    density: Field,
    shown: Mask,
    *,
    gamma: tuple[float, float],
    noise: float,
    clip: float,
    headroom: float = 0.15,
) -> Field:
    """Apply window, gamma, blur and noise: `density` of any range to brightness 0..1, [H, W].

    The window spans the shown part's percentiles, up to `clip` per cent cut at each end, and may
    leave up to `headroom` of its width unused above. `gamma` is the mean and deviation of the
    exponent's logarithm, `noise` the largest deviation of the grain.
    """
    scale = max(density.shape) / 256
    density = blur(density, scale * abs(rng.normal(0, 0.7)))
    sample = density[::3, ::3][shown[::3, ::3]]
    low, high = np.percentile(sample, [rng.uniform(0, clip), 100 - rng.uniform(0, clip)])
    margin = (high - low) * rng.uniform((-0.05, -0.03), (0.05, headroom))
    low, high = low - margin[0], high + margin[1]
    value = np.clip((density - np.float32(low)) / np.float32(max(high - low, 1e-6)), 0, 1)
    value = cv2.pow(value, float(np.exp(rng.normal(*gamma))))
    if chance(rng, 0.3):  # an S-shaped film curve
        value = value * value * (3 - 2 * value)
    if chance(rng, 0.6):
        grain = rng.standard_normal(value.shape, dtype=np.float32)
        if chance(rng, 0.5):
            grain = blur(grain, rng.uniform(0.4, 0.9)) * 2
        if chance(rng, 0.5):  # air stays black
            grain = grain * value
        value = value + np.float32(rng.uniform(0, noise)) * grain
    if chance(rng, 0.25):
        value = value + np.float32(rng.uniform(0, 0.12)) * smooth_noise(
            rng, value.shape, 90 * scale
        )
    return as_field(np.clip(value, 0, 1))


def wear(rng: np.random.Generator, image: Image) -> Image:
    """Degrade an image as storing and copying do: enlarged thumbnails, JPEG. uint8 [H, W]."""
    if chance(rng, 0.2):
        height, width = image.shape
        factor = rng.uniform(0.4, 0.9)
        small = cv2.resize(
            image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA
        )
        image = _as_image(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    if chance(rng, 0.25):
        quality = int(rng.integers(30, 90))
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = _as_image(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))
    return image


def write_text(rng: np.random.Generator, image: Image, lines: int) -> None:
    """Burn `lines` short texts into the margins of `image` (uint8 [H, W], changed in place)."""
    height, width = image.shape
    value = int(rng.choice([255, 230, 180, 0], p=[0.6, 0.2, 0.1, 0.1]))
    for _ in range(lines):
        letters = int(rng.integers(1, 14))
        text = "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), letters))
        size = max(height, width) / 256 * rng.uniform(0.2, 0.55)
        x = rng.uniform(0.01, 0.2) if chance(rng, 0.5) else rng.uniform(0.65, 0.92)
        y = rng.uniform(0.02, 0.15) if chance(rng, 0.7) else rng.uniform(0.85, 0.99)
        position = (int(x * width), int(y * height))
        font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN]))
        cv2.putText(image, text, position, font, size, value, 1, cv2.LINE_AA)


def to_rgb(rng: np.random.Generator, image: Image) -> Image:
    """Convert grey uint8 [H, W] to RGB [H, W, 3], sometimes with a faint tint."""
    rgb = np.repeat(image[:, :, None], 3, axis=2)
    if chance(rng, 0.03):
        tint = 1 - rng.uniform(0, 0.2, 3) * (rng.random(3) < 0.6)
        rgb = np.round(rgb * tint).astype(np.uint8)
    return rgb


def _as_image(array: npt.ArrayLike | None) -> Image:
    return np.asarray(array, dtype=np.uint8)
