"""What ``run.precision: fast`` does on a CPU: ``python -m benchmarks.precision``.

The bundled models label phantoms of the tune bank in both precisions, in turn, on one thread.
Prints a row per task: how alike the labels are, their Dice with the reference, and seconds of CPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import typer

from salip_ray import Cascade, load_config
from salip_ray.cascade.cascade import CascadeResult
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.schema import Mask

_KINDS = {"lungs": "chest_xray", "brain": "brain_mri", "fetal_head": "fetal_ultrasound"}
_PRECISIONS = ("exact", "fast")
_COLUMNS = (
    *("task", "n", "Dice of both, mean", "least", "same points picked"),
    *("Dice exact", "Dice fast", "exact over fast, median of pairs"),
)


def main(
    phantoms: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 20,
) -> None:
    """Label, compare and print a table."""
    torch.set_num_threads(1)
    typer.echo(_line(_COLUMNS) + _line(["---"] * len(_COLUMNS)), nl=False)
    for task, kind in _KINDS.items():
        typer.echo(_line([task, str(phantoms), *_compare(task, kind, phantoms)]), nl=False)


def _compare(task: str, kind: str, count: int) -> list[str]:
    """Return the figures of one task."""
    cascades = [
        Cascade(load_config(task, overrides=[f"run.precision={name}", "task.min_confidence=0"]))
        for name in _PRECISIONS
    ]
    organ = cascades[0].config.task.classes[0].label
    alike, same, references, ratios = [], 0, [], []
    for index in range(count):
        phantom = make_phantom(kind, index, bank="tune")
        results: dict[int, CascadeResult] = {}
        seconds = [0.0, 0.0]
        for which in (index % 2, 1 - index % 2):  # each goes first half of the time
            began = time.process_time()
            results[which] = cascades[which](phantom.image)
            seconds[which] = time.process_time() - began
        exact, fast = (_mask(results[which], phantom.image.shape[:2]) for which in (0, 1))
        alike.append(_overlap(exact, fast))
        same += _points(results[0]) == _points(results[1])
        references.append([_overlap(mask, phantom.mask(organ)) for mask in (exact, fast)])
        ratios.append(seconds[0] / seconds[1])
    means = np.mean(references, axis=0)
    return [
        *(f"{np.mean(alike):.4f}", f"{min(alike):.3f}", f"{same} of {count}"),
        *(f"{means[0]:.4f}", f"{means[1]:.4f}", f"{np.median(ratios):.2f}"),
    ]


def _mask(result: CascadeResult, size: tuple[int, ...]) -> Mask:
    masks = (item.mask for item in result.masks if item.method == "cascade")
    return next(masks, np.zeros(size, np.bool_))


def _overlap(one: Mask, other: Mask) -> float:
    return dice(one, other) if one.any() or other.any() else 1.0


def _points(result: CascadeResult) -> list[tuple[float, ...]]:
    """Return the points of the retrieved candidates."""
    points = {candidate.id: candidate.point for candidate in result.candidates}
    return sorted(tuple(points[item.candidate_id]) for item in result.selections)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    typer.run(main)
