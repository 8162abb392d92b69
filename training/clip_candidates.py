"""Candidates to learn from: masks around the structures of a phantom, judged by what they cover.

In retrieval, CLIP separates the organ from everything else that SAM proposes on the same image:
pieces of the organ, the organ with its neighbours, neighbours alone, patches of nothing. This
module makes such masks from a phantom's own structures. `judge` also judges the masks that a
trained SAM proposes (see `clip_mining`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.schema import Candidate, Mask
from training.bank import Grey
from training.sentences import LABELS

CHEST, BRAIN, FETAL = "chest_xray", "brain_mri", "fetal_ultrasound"

LEAST_PIXELS = 60  #: the proposer removes smaller masks, too (min_mask_region_area)

# Top-k retrieval wants one lung per mask; both in one mask are worth less, but not nothing.
_BOTH_LUNGS = 0.75
_TARGETS = {
    CHEST: (("left lung", 1.0), ("right lung", 1.0), ("lungs", _BOTH_LUNGS)),
    BRAIN: (("brain", 1.0),),
    FETAL: (("fetal head", 1.0),),
}
TARGET_LABEL = {CHEST: "lungs", BRAIN: "brain", FETAL: "fetal head"}
_FRAGMENT = {CHEST: "lung fragment", BRAIN: "brain fragment", FETAL: "head fragment"}
_UNION = {CHEST: "lung union", BRAIN: "brain union", FETAL: "head union"}
_RENAMED = {"left lung": "lungs", "right lung": "lungs", "bowel gas": "stomach gas"}


@dataclass(frozen=True, slots=True)
class NamedMask:
    """A structure of a phantom: its name there and its mask [H, W]."""

    name: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a mask shows.

    Attributes:
        label: index of its class in `LABELS`.
        other: index of the next most similar class; equal to `label` if there is none.
        share: degree to which it is `label` rather than `other`, 0.5..1.
        grade: how good a prompt it is for the organ of its kind, 0..1: the mean of mask IoU and box
            IoU with the best instance (a refiner sees the box alone).
    """

    label: int
    other: int
    share: float
    grade: float


def judge(masks: Sequence[Mask], structures: Sequence[NamedMask], kind: str) -> list[Verdict]:
    """Return what each mask shows of a phantom with these structures."""
    if not masks:
        return []
    drawn = np.stack([s.mask.ravel() for s in structures]).astype(np.float32)
    proposed = np.stack([mask.ravel() for mask in masks]).astype(np.float32)
    overlap = proposed @ drawn.T
    areas = proposed.sum(axis=1)[:, None], drawn.sum(axis=1)[None]
    iou = overlap / np.maximum(areas[0] + areas[1] - overlap, 1)
    inside, covered = overlap / np.maximum(areas[0], 1), overlap / np.maximum(areas[1], 1)
    boxes = [np.array([box_of(mask) for mask in group]) for group in (masks, _masks(structures))]
    grades = 0.5 * (iou + _box_iou(boxes[0], boxes[1]))

    worth = dict(_TARGETS[kind])
    targets = [index for index, s in enumerate(structures) if s.name in worth]
    worths = np.array([worth[structures[index].name] for index in targets], np.float32)
    return [
        _verdict(
            kind,
            [_RENAMED.get(s.name, s.name) for s in structures],
            iou[row],
            # The union of the lungs is one of several targets: a fragment is one of a lung.
            inside[row, targets].max(initial=0.0),
            covered[row, targets].max(initial=0.0),
            float((grades[row, targets] * worths).max(initial=0.0)),
        )
        for row in range(len(masks))
    ]


def _verdict(
    kind: str,
    names: list[str],
    iou: npt.NDArray[np.float32],
    inside: float,
    covered: float,
    grade: float,
) -> Verdict:
    best = int(iou.argmax())
    target = TARGET_LABEL[kind]
    if inside >= 0.5 and covered < 0.9 and inside >= covered:
        mistake = _FRAGMENT[kind]
    elif covered >= 0.5 or inside >= 0.3:
        mistake = _UNION[kind]
    else:
        mistake = "background"
    # Between clearly not the organ (IoU .6) and clearly the organ (.85), both are partly right.
    share = float(np.clip((iou[best] - 0.6) / 0.25, 0, 1))
    if names[best] == target and share > 0:
        first, second = LABELS.index(target), LABELS.index(mistake)
        if share < 0.5:
            return Verdict(second, first, 1 - share, grade)
        return Verdict(first, second, share, grade)
    named = names[best] if names[best] != target and iou[best] >= 0.5 else mistake
    label = LABELS.index(named)
    return Verdict(label, label, 1.0, grade)


def structure_masks(
    image: Grey, structures: Sequence[NamedMask], kind: str, count: int, rng: np.random.Generator
) -> list[Mask]:
    """Draw at most `count` masks as a SAM might propose them, from correct to wrong."""
    targets = {name for name, _ in _TARGETS[kind]}
    organs = [s.mask for s in structures if s.name in targets]
    others = [s.mask for s in structures if s.name not in targets]
    pool: list[Mask] = []
    for organ in organs[:3]:
        pool += [organ, *(_wobbled(organ, rng) for _ in range(2))]
        pool += [_cut(organ, rng), _tinted(image, organ, rng), _joined(organ, others, rng)]
        if rng.random() < 0.5:
            pool.append(_cut(_wobbled(organ, rng), rng))
    chosen = rng.permutation(len(others))[: count // 3]
    pool += [_wobbled(others[i], rng) if rng.random() < 0.3 else others[i] for i in chosen]
    pool += [_region(image, rng) for _ in range(3)]
    pool += [~_joined(organs[0], others, rng), _blob(image.shape, rng)]
    pool = [mask for mask in pool if np.count_nonzero(mask) >= LEAST_PIXELS]
    order = rng.permutation(len(pool))[:count]
    if 0 not in order:  # the first organ itself is always among them
        order[0] = 0
    return [pool[i] for i in order]


def candidate(mask: Mask, index: int = 0) -> Candidate:
    """Return a mask as a candidate of the cascade, with all scores of SAM set to 1."""
    height, width = mask.shape
    x0, y0, x1, y1 = box_of(mask)
    return Candidate(
        id=index,
        mask=mask,
        area=int(np.count_nonzero(mask)),
        box=(x0, y0, x1, y1),
        predicted_iou=1.0,
        stability_score=1.0,
        point=((x0 + x1) / 2, (y0 + y1) / 2),
        crop_box=(0, 0, width - 1, height - 1),
    )


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Return the box around a non-empty mask: x0, y0, x1, y1, inclusive."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width - 1, y + height - 1


def _masks(structures: Sequence[NamedMask]) -> list[Mask]:
    return [s.mask for s in structures]


def _box_iou(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the IoU [n, m] of inclusive xyxy boxes [n, 4] and [m, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low + 1, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1) for boxes in (a, b)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared))


def _wobbled(mask: Mask, rng: np.random.Generator) -> Mask:
    """Move the outline of the mask in and out at random."""
    scale = np.sqrt(np.count_nonzero(mask)) + 1.0
    soft = cv2.GaussianBlur(
        mask.astype(np.float32), (0, 0), max(0.6, scale * np.exp(rng.uniform(-4.5, -2.2)))
    )
    bumps = cv2.resize(
        rng.normal(0, rng.uniform(0.05, 0.35), (6, 6)).astype(np.float32),
        mask.shape[::-1],
        interpolation=cv2.INTER_CUBIC,
    )
    return np.asarray(soft + bumps > rng.uniform(0.15, 0.85)) & _reach(mask, scale)


def _reach(mask: Mask, scale: float) -> Mask:
    """Return the pixels within about a quarter of the mask's size from the mask."""
    width = int(scale / 4) | 1
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((width, width), np.uint8))
    return grown.astype(np.bool_)


def _cut(mask: Mask, rng: np.random.Generator) -> Mask:
    """Cut the mask along a random line, sometimes a curved one, and return one side."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return mask
    at = rng.integers(len(rows))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.indices(mask.shape, dtype=np.float32)
    across = (x - columns[at]) * np.cos(angle) + (y - rows[at]) * np.sin(angle)
    if rng.random() < 0.3:
        along = (y - rows[at]) * np.cos(angle) - (x - columns[at]) * np.sin(angle)
        across = across + rng.normal(0, 0.01) * along**2
    return np.asarray(mask & (across > 0))


def _tinted(image: Grey, mask: Mask, rng: np.random.Generator) -> Mask:
    """Return the part of the mask, sometimes with its surroundings, of similar brightness."""
    if not mask.any():
        return mask
    smooth = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 4.0))
    low, high = np.percentile(smooth[mask], sorted(rng.uniform(0, 100, 2)))
    within = mask if rng.random() < 0.6 else _reach(mask, np.sqrt(np.count_nonzero(mask)))
    return np.asarray(within & (smooth >= low) & (smooth <= high))


def _joined(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    """Add something to the mask that does not belong to it."""
    choice = rng.random()
    if choice < 0.5 and others:
        return np.asarray(mask | others[int(rng.integers(len(others)))])
    if choice < 0.75:
        width = int(np.sqrt(np.count_nonzero(mask)) * rng.uniform(0.1, 0.45)) | 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        return cv2.dilate(mask.astype(np.uint8), kernel).astype(np.bool_)
    if choice < 0.9:
        return mask | (_blob(mask.shape, rng) & _reach(mask, 2 * np.sqrt(mask.sum())))
    x0, y0, x1, y1 = box_of(mask) if mask.any() else (0, 0, 0, 0)
    boxed = np.zeros_like(mask)
    boxed[y0 : y1 + 1, x0 : x1 + 1] = True
    return boxed


def _region(image: Grey, rng: np.random.Generator) -> Mask:
    """Return connected pixels of similar brightness around a random pixel."""
    smooth = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 4.0))
    height, width = image.shape
    seed = int(rng.integers(width)), int(rng.integers(height))
    tolerance = int(rng.uniform(4, 40))
    flooded = np.zeros((height + 2, width + 2), np.uint8)
    cv2.floodFill(
        smooth, flooded, seed, 0, tolerance, tolerance,
        cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE,
    )  # fmt: skip
    filled = cv2.morphologyEx(flooded[1:-1, 1:-1], cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return filled.astype(np.bool_)


def _blob(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """Draw a random ellipse."""
    height, width = shape
    canvas = np.zeros((height, width), np.uint8)
    axes = np.exp(rng.uniform(np.log(0.03), np.log(0.35), 2)) * max(shape)
    centre = int(rng.integers(width)), int(rng.integers(height))
    cv2.ellipse(
        canvas, centre, (int(axes[0]), int(axes[1])), rng.uniform(0, 180), 0, 360, 1, cv2.FILLED
    )
    return canvas.astype(np.bool_)
