"""The view of the probe: a sector, the direction of sound in it, and its speckle."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from salip_ray.models.bundled.phantoms.acquisition import chance
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field, Mask, as_field
from salip_ray.models.bundled.phantoms.texture import speckle


@dataclass(frozen=True)
class Fan:
    """The sector that the probe sees, as fields [H, W].

    `depth` is 0 at the probe and 1 at the far edge; `beam_x` and `beam_y` are the unit direction
    in which sound travels.
    """

    shown: Mask
    depth: Field
    beam_x: Field
    beam_y: Field
    angle: Field  # across the fan, -1..1


def draw_fan(rng: np.random.Generator, canvas: Canvas) -> Fan:
    """Draw the view of a sector probe with its apex above the frame, sometimes to the corners."""
    height, width = canvas.shape
    apex_x = width * rng.normal(0.5, 0.04)
    above = height * rng.uniform(0.1, 1.6)  # the apex lies above the frame
    apex_y = -above
    half = rng.uniform(0.35, 0.75) if above > 0.4 * height else rng.uniform(0.6, 0.95)
    near = above * rng.uniform(0.85, 1.0) + height * rng.uniform(-0.05, 0.06)
    far = above + height * rng.uniform(0.93, 1.2)
    theta = np.linspace(-half, half, 40)
    edge = np.stack([apex_x + far * np.sin(theta), apex_y + far * np.cos(theta)], axis=1)
    top = np.stack([apex_x + near * np.sin(theta), apex_y + near * np.cos(theta)], axis=1)
    shown = canvas.fill(np.vstack([edge, top[::-1]])) > 0.5
    if chance(rng, 0.08):  # a linear probe, or a picture cut to the tissue
        shown[:] = True
    columns, rows = canvas.grid()
    dx, dy = columns - np.float32(apex_x), rows - np.float32(apex_y)
    radius = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    depth = np.clip((radius - np.float32(near)) / np.float32(far - near), 0, 1)
    angle = np.arctan2(dx, dy) / np.float32(half)
    return Fan(shown, depth, dx / radius, dy / radius, angle)


def fan_speckle(rng: np.random.Generator, fan: Fan) -> Field:
    """Draw speckle of mean 1 over (depth, angle): it widens with depth and follows the arcs."""
    size = max(fan.depth.shape)
    fine = size / 256 * rng.uniform(0.7, 1.4)
    rows, columns = size, round(size * 0.7)
    sheet = speckle(rng, (rows, columns), (fine, fine * rng.uniform(1.2, 3.0)))
    across = (np.clip(fan.angle, -1.3, 1.3) + np.float32(1.3)) * np.float32((columns - 1) / 2.6)
    along = fan.depth * np.float32(rows - 1)
    return as_field(cv2.remap(sheet, across, along, cv2.INTER_LINEAR))
