"""Which images a review page shows, and in which order."""

from __future__ import annotations

import random
from collections.abc import Sequence

from salip_ray.datasets.index import Entry
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.queue import is_decided, least_certain_first


def choose(labels: PseudoLabels, limit: int, *, sample: bool = False, seed: int = 0) -> list[Entry]:
    """Return the images to review; slices of a volume follow each other in their order.

    A volume is shown completely, with its unlabelled slices, so that a person can scroll through
    it. It counts with all of its slices, and its least certain slice decides its place. Volumes and
    images without any label, and those that people have decided on, are left out.

    Args:
        labels: opened with ``negatives``.
        limit: the most images; at least one volume is chosen, however large it is.
        sample: choose at random instead of the least certain.
        seed: of the sample.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in labels.entries:
        groups.setdefault(entry.volume or entry.image_id, []).append(entry)
    undecided = [group for group in groups.values() if _needs_review(group, labels)]
    undecided.sort(key=_rank)
    if sample:
        random.Random(seed).shuffle(undecided)  # noqa: S311  (not for secrets)
    chosen: list[Entry] = []
    for group in undecided:
        if chosen and len(chosen) + len(group) > limit:
            continue
        chosen += sorted(group, key=lambda entry: (entry.slice or 0, entry.image_id))
    return chosen


def _needs_review(group: Sequence[Entry], labels: PseudoLabels) -> bool:
    return any(entry.figures and not is_decided(entry, labels) for entry in group)


def _rank(group: Sequence[Entry]) -> tuple[float, str]:
    return min(least_certain_first(entry) for entry in group if entry.figures)
