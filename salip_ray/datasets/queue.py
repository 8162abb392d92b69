"""The order in which people look at labels: what is undecided, the least certain first."""

from __future__ import annotations

import math

from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels


def least_certain_first(entry: Entry) -> tuple[float, str]:
    """Return the sort key of an image; unknown confidence comes first."""
    unknown = math.isnan(entry.confidence)
    return (-1.0 if unknown else entry.confidence, entry.image_id)


def is_decided(entry: Entry, labels: PseudoLabels) -> bool:
    """Return True if people have decided on every label of an image."""
    ids = labels.class_ids
    standing = labels.reader.reviews.standing(entry.image_id, ids.values())
    return bool(standing) and all(ids[label] in standing for label in entry.figures or ids)
