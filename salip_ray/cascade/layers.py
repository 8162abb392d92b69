"""Classes in layers: a pixel of several classes belongs to the last of them alone.

Masks of organs that lie in or over each other overlap: SAM segments a head with its brain, and a
lung behind the heart. A reference label map has one class per pixel. With ``task.layered`` masks
are cut in the same way, in the order of the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from salip_ray.schema import ClassMask, Mask


def in_layers(masks: Sequence[ClassMask]) -> list[ClassMask]:
    """Return the masks of one method without the pixels of later classes.

    A mask without any other pixel is left out. Instances and the union of candidates are cut, too;
    scores stay, as they are of the whole masks. The order of the masks stays.
    """
    cut: dict[int, ClassMask] = {}
    above: Mask | None = None
    for item in sorted(masks, key=lambda mask: -mask.class_id):
        below = item if above is None else _without(item, above)
        if below.mask.any():
            cut[item.class_id] = below
        above = item.mask if above is None else above | item.mask
    return [cut[item.class_id] for item in masks if item.class_id in cut]


def _without(item: ClassMask, above: Mask) -> ClassMask:
    if not np.logical_and(item.mask, above).any():
        return item
    cut = [replace(part, mask=part.mask & ~above) for part in item.instances]
    parts = tuple(part for part in cut if part.mask.any())
    proposed = item.proposed
    return replace(
        item,
        mask=item.mask & ~above,
        instances=parts if len(parts) > 1 else (),
        proposed=proposed and replace(proposed, mask=proposed.mask & ~above),
    )
