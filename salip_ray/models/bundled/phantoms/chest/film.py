"""The film that every structure of a chest adds to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from salip_ray.models.bundled.phantoms.phantom import Legend
from salip_ray.models.bundled.phantoms.shapes import Canvas, Field
from salip_ray.models.bundled.phantoms.texture import blur

RIGHT, LEFT = -1.0, 1.0  # sign of x on each side of the patient


@dataclass
class Film:
    """The sum so far: `density` grows with tissue along the beam (white on a common film)."""

    canvas: Canvas
    density: Field
    legend: Legend = field(default_factory=Legend)

    def add(self, coverage: Field, amount: float, soft: float = 0.0) -> None:
        """Add `amount` where `coverage`, its edge softened by `soft` units."""
        self.density += blur(coverage, soft * self.canvas.scale) * np.float32(amount)
