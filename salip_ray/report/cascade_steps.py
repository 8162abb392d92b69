"""The steps of the cascade on one image, as a picture: proposals, ranked crops, boxes, label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from salip_ray.cascade.geometry import make_working
from salip_ray.cascade.own_models import selection_scores
from salip_ray.cascade.visual_prompts import visual_prompt
from salip_ray.report.canvas import (
    CLASS_COLOURS,
    INK,
    MARGIN,
    RULE,
    SCALE,
    SOFT_INK,
    Canvas,
    fitted,
    fitted_mask,
    outlined,
    placed,
    tinted,
)
from salip_ray.schema import Box, Image
from salip_ray.wording import counted

if TYPE_CHECKING:
    from salip_ray.cascade.cascade import Cascade, CascadeResult

_TILE_SIDE, _CROP_SIDE, _GAP = 292, 120, 16
_TILE, _CROP = (_TILE_SIDE, _TILE_SIDE), (_CROP_SIDE, _CROP_SIDE)
_CROPS = 9  # per class; a row of them is as wide as the four tiles
_STEP, _CAPTION, _STRIP = 40, 30, 44


@dataclass(frozen=True)
class CascadeSteps:
    """The steps of the cascade on one image.

    Attributes:
        image: uint8 RGB [H, W, 3].
        working: the working image, which the candidates refer to.
        result: the result of the cascade.
        scores: 100 * cosine of each candidate and class, [n, n_classes].
        crops: the visual prompt of each candidate.
        is_salip: the models are SAM and CLIP.
    """

    image: Image
    working: Image
    result: CascadeResult
    scores: npt.NDArray[np.float32]
    crops: Sequence[Image]
    is_salip: bool = True


def run_with_steps(cascade: Cascade, image: Image) -> CascadeSteps:
    """Run the cascade on an image and return its steps.

    Raises:
        ValueError: ``run.modes`` of the cascade lacks ``cascade``, so nothing is retrieved.
    """
    if "cascade" not in cascade.config.run.modes:
        raise ValueError("run.modes must include cascade to draw its steps")
    result = cascade(image)
    working = make_working(image, cascade.config.image)
    n_classes = len(cascade.config.task.classes)
    scores = np.zeros((0, n_classes), np.float32)
    if result.candidates and cascade.retrieve is not None:
        scores = cascade.retrieve.scores(working, result.candidates).numpy()
    elif result.candidates:
        scores = selection_scores(result.selections, result.candidates, n_classes).numpy()
    crops = [visual_prompt(working, c, cascade.config.retrieve) for c in result.candidates]
    own = {"propose": "sam", "retrieve": "clip", "refine": "sam"}
    models = {role: getattr(cascade.config, role).model for role in own}
    return CascadeSteps(image, working, result, scores, crops, is_salip=models == own)


def draw_steps(steps: CascadeSteps, labels: Sequence[str], title: str, path: Path) -> None:
    """Draw the steps and write them as a PNG.

    Args:
        steps: the steps.
        labels: the classes, in the order of the scores' columns.
        title: the line at the top.
        path: the file to write.
    """
    width = 2 * MARGIN + 4 * _TILE_SIDE + 3 * _GAP
    top = 64
    strips = top + _STEP + _TILE_SIDE + _CAPTION + 20
    strip = _STRIP + _CROP_SIDE + _CAPTION
    canvas = Canvas(width, strips + len(labels) * strip + MARGIN)
    canvas.text(MARGIN, 42, title, 25, INK)
    canvas.text(width - MARGIN, 42, "Research use only", 15, SOFT_INK, anchor="rs")
    canvas.rule(MARGIN, top - 8, width - MARGIN)
    for column, (name, picture, caption) in enumerate(_steps(steps)):
        x = MARGIN + column * (_TILE_SIDE + _GAP)
        canvas.text(x, top + 24, name, 17, INK)
        canvas.picture(x, top + _STEP, picture)
        canvas.text(x, top + _STEP + _TILE_SIDE + 20, caption, 14.5, SOFT_INK)
    for number, label in enumerate(labels):
        _draw_strip(canvas, steps, number, label, strips + number * strip)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def _steps(steps: CascadeSteps) -> list[tuple[str, Image, str]]:
    result = steps.result
    size = f"{result.width} x {result.height} px"
    counts = (
        f"{counted(result.n_proposed, 'candidate')}, {len(result.candidates)} in the area limits"
    )
    boxes = fitted(steps.image, _TILE)
    label = fitted(steps.image, _TILE)
    for mask in result.masks:
        colour = CLASS_COLOURS[(mask.class_id - 1) % len(CLASS_COLOURS)]
        on_tile = fitted_mask(mask.mask, _TILE)
        tinted(label, on_tile, colour)
        outlined(label, on_tile, colour, 2 * SCALE)
        for box in mask.prompt_boxes:
            corners = _box_on_tile(box, steps)
            cv2.rectangle(boxes, corners[:2], corners[2:], colour, 2 * SCALE, cv2.LINE_AA)
    n_boxes = sum(len(mask.prompt_boxes) for mask in result.masks)
    prompts = counted(n_boxes, "prompt")
    if steps.is_salip:
        prompts += " of SAM"
    reasons = [item.reason for item in result.outcomes if item.reason]
    covered = ", ".join(f"{m.label} {m.mask.mean():.1%} of the image" for m in result.masks)
    return [
        ("1  Input", fitted(steps.image, _TILE), size),
        ("2  SAM proposes" if steps.is_salip else "2  Candidates", _proposals(steps), counts),
        ("4  Boxes of the retrieved", boxes, prompts),
        ("5  Label", label, covered or (reasons[0] if reasons else "no mask")),
    ]


def _proposals(steps: CascadeSteps) -> Image:
    picture = fitted(steps.image, _TILE)
    # The largest first, so that small ones are not painted over.
    ordered = sorted(steps.result.candidates, key=lambda candidate: -candidate.area)
    for number, candidate in enumerate(ordered):
        mask = fitted_mask(candidate.mask, _TILE)
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        tinted(picture, mask, colour)
        outlined(picture, mask, colour, SCALE)
    return picture


def _draw_strip(canvas: Canvas, steps: CascadeSteps, number: int, label: str, top: float) -> None:
    """Draw the crops of a class in CLIP's order; retrieved ones have a frame."""
    candidates = steps.result.candidates
    chosen = {s.candidate_id for s in steps.result.selections if s.class_id == number + 1}
    ranked = sorted(
        range(len(candidates)), key=lambda i: (-float(steps.scores[i, number]), candidates[i].id)
    )
    colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
    canvas.rule(MARGIN, top, canvas.size[0] - MARGIN)
    title = f"3  CLIP ranks the crops: {label}" if steps.is_salip else f"3  Ranked crops: {label}"
    x = canvas.text(MARGIN, top + 28, title, 17, INK)
    if len(ranked) > _CROPS:
        note = f"the best {_CROPS} of {len(ranked)}; framed: retrieved"
    else:
        note = "framed: retrieved" if ranked else "there is no candidate to rank"
    canvas.text(MARGIN + x + 14, top + 28, note, 14.5, SOFT_INK)
    missing = [i for i in ranked[_CROPS:] if candidates[i].id in chosen]
    shown = [*ranked[: _CROPS - len(missing)], *missing]
    step = (canvas.size[0] - 2 * MARGIN - _CROP_SIDE) / (_CROPS - 1)
    for column, index in enumerate(shown):
        candidate = candidates[index]
        x = MARGIN + column * step
        picture = fitted(steps.crops[index], _CROP)
        frame, thick = (colour, 4 * SCALE) if candidate.id in chosen else (RULE, SCALE)
        cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, picture.shape[0] - 1), frame, thick)
        canvas.picture(x, top + _STRIP, picture)
        score = f"{float(steps.scores[index, number]):.2f}"
        bottom = top + _STRIP + _CROP_SIDE + 19
        canvas.text(x + 1, bottom, f"#{candidate.id}", 14.5, SOFT_INK)
        canvas.text(x + _CROP_SIDE - 1, bottom, score, 14.5, INK, anchor="rs")


def _box_on_tile(box: Box, steps: CascadeSteps) -> tuple[int, int, int, int]:
    """Return an inclusive box of the working image in pixels of the drawn tile."""
    left, top, width, height = placed(steps.image.shape, _TILE)
    rows, columns = steps.working.shape[:2]
    x0, y0, x1, y1 = box
    return (
        round(left + x0 / columns * width),
        round(top + y0 / rows * height),
        round(left + (x1 + 1) / columns * width) - 1,
        round(top + (y1 + 1) / rows * height) - 1,
    )
