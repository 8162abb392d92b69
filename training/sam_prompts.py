"""Prompts for a training image, and the structures that SAM should return.

The three masks of a point have fixed roles: part, organ, whole. If the point is in no structure of
a role, the organ is its target, so that every mask has one. A box has one target, the structure
that it surrounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.augment import Sample

ROLES = ("part", "organ", "whole")  #: of mask tokens 1, 2 and 3

#: Organs that users ask for and that training therefore prefers. Lungs are prompted one by one.
TARGET_ORGANS = {
    "chest_xray": ("left lung", "right lung"),
    "brain_mri": ("brain",),
    "fetal_ultrasound": ("fetal head",),
}

#: Other organs of tasks with several classes: preferred to what is left, and judged apart.
OTHER_ORGANS = {
    "chest_xray": ("heart", "abdomen", "spine"),
    "brain_mri": ("ventricles", "cerebellum", "eye", "head outline"),
    "fetal_ultrasound": ("placenta", "amniotic fluid", "fetal body"),
}

#: Never prompted: background by another name, the shell of an organ, or a texture in it.
NOT_ASKED_FOR = frozenset(
    ("fan", "hilum", "opacity", "rib", "shadow", "skull", "skull ring", "white matter")
)

POINTS, BOXES = 7, 2  #: prompts per image
_DEVIATIONS = (0.02, 0.1)  # at most, of a side of a box: as tight as a reference's, or loose
_ON_TARGET, _ON_OTHER, _ON_NOTHING = 0.4, 0.35, 0.12
_SMALLEST = 40  #: structures with fewer visible pixels are not prompted
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of one image, in canvas pixels.

    Attributes:
        points: float32 [POINTS, 2], x and y of one foreground point each.
        point_targets: int64 [POINTS, 3], structure of each role, or NOTHING throughout.
        boxes: float32 [BOXES, 4], xyxy inclusive, jittered.
        box_targets: int64 [BOXES], structure.
    """

    points: npt.NDArray[np.float32]
    point_targets: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    box_targets: npt.NDArray[np.int64]


def draw_prompts(
    sample: Sample,
    names: tuple[str, ...],
    roles: tuple[str, ...],
    kind: str,
    rng: np.random.Generator,
) -> Prompts | None:
    """Draw random prompts; return None if the image shows no structure to ask for.

    Args:
        sample: an augmented phantom.
        names: of each structure (bit of the labels).
        roles: of each structure.
        kind: of phantom; it decides which organs are preferred.
        rng: decides the prompts.
    """
    asked = [s for s, name in enumerate(names) if name not in NOT_ASKED_FOR]
    areas = np.zeros(len(names), np.int64)
    areas[asked] = [np.count_nonzero(sample.labels & (1 << s)) for s in asked]
    shown = np.flatnonzero(areas >= _SMALLEST)
    if len(shown) == 0:
        return None
    wanted = np.array([s for s in shown if names[s] in TARGET_ORGANS[kind]], np.int64)
    others = sorted({names[s] for s in shown} & {*OTHER_ORGANS[kind]})

    def structure() -> int:
        share = rng.random()
        if len(wanted) > 0 and share < _ON_TARGET:
            return int(rng.choice(wanted))
        if others and _ON_TARGET <= share < _ON_TARGET + _ON_OTHER:
            name = rng.choice(others)  # each organ alike, however many of its name are shown
            return int(rng.choice([s for s in shown if names[s] == name]))
        return int(rng.choice(shown))

    height, width = sample.content
    anything = sum(1 << s for s in asked)
    empty = np.argwhere(sample.labels[:height, :width] & anything == 0)
    points = np.zeros((POINTS, 2), np.float32)
    point_targets = np.full((POINTS, 3), NOTHING, np.int64)
    for n in range(POINTS):
        if len(empty) > 0 and rng.random() < _ON_NOTHING:
            y, x = empty[rng.integers(len(empty))]
        else:
            chosen = structure()
            inside = np.argwhere(sample.labels & (1 << chosen))
            y, x = inside[rng.integers(len(inside))]
            point_targets[n] = _by_role(int(sample.labels[y, x]), chosen, areas, roles)
        points[n] = x, y

    box_targets = np.array([structure() for _ in range(BOXES)], np.int64)
    boxes = np.stack([_jittered_box(sample, int(s), rng) for s in box_targets])
    return Prompts(points, point_targets, boxes, box_targets)


def _by_role(
    here: int, chosen: int, areas: npt.NDArray[np.int64], roles: tuple[str, ...]
) -> tuple[int, int, int]:
    """Return the smallest structures under a point as (part, organ, whole)."""
    under = [s for s in range(len(roles)) if here >> s & 1 and areas[s] >= _SMALLEST]
    by_role = dict.fromkeys(ROLES, NOTHING)
    for s in sorted(under, key=lambda s: areas[s], reverse=True):
        by_role[roles[s]] = s
    organ = by_role["organ"] if by_role["organ"] != NOTHING else chosen
    part = by_role["part"] if by_role["part"] != NOTHING else organ
    whole = by_role["whole"] if by_role["whole"] != NOTHING else organ
    return part, organ, whole


def _jittered_box(
    sample: Sample, structure: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return the box of a structure; move each side by up to 2 or 10 % of the box (deviation)."""
    mask = sample.labels & (1 << structure)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    box = np.array((columns[0], rows[0], columns[-1], rows[-1]), np.float32)
    sides = np.array((box[2] - box[0], box[3] - box[1]) * 2) + 1.0
    jitter = rng.normal(0.0, rng.uniform(0.0, rng.choice(_DEVIATIONS)), 4) * sides
    height, width = sample.content
    return np.clip(box + np.clip(jitter, -20, 20), 0, (width - 1, height - 1) * 2).astype(
        np.float32
    )
