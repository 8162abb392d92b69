"""What people decided about an image, whichever tool they used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from salip_ray.datasets.reviews import Verdict
from salip_ray.output.masks import LabelMap


@dataclass(frozen=True)
class ImageReview:
    """The decisions on one image.

    Attributes:
        verdicts: by class id; classes without one are undecided.
        label_map: class ids [H, W] if a class was corrected, else None.
        reason: why labels were corrected or rejected; may be empty.
    """

    image_id: str
    verdicts: Mapping[int, Verdict]
    label_map: LabelMap | None = None
    reason: str = ""
