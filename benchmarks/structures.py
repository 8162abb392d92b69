"""Which structures of phantoms the bundled SAM knows: ``python benchmarks/structures.py``.

For each structure of the phantoms of a bank: the Dice of SAM's mask from its box (GT-SAM), and of
the best candidate, once with the thresholds of the preset ``bundled`` and once with none. A
structure with a good box and no good candidate is one that SAM knows and does not propose.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from salip_ray.cascade.geometry import make_working
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.config import Config, load_config
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import KINDS, Phantom, make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.schema import Mask

_EVERYTHING = ("task.min_area=0", "task.max_area=1")
_NO_THRESHOLDS = ("propose.pred_iou_thresh=0", "propose.stability_score_thresh=0")
Row = tuple[str, float, float, float, float]  #: name, area, and Dice of GT-SAM and of candidates


def main(
    images: Annotated[int, typer.Option(min=1, help="Phantoms of each kind.")] = 30,
    bank: Annotated[str, typer.Option(help="train, tune or test.")] = "tune",
    weights: Annotated[Path | None, typer.Option(help="Weights of another bundled SAM.")] = None,
) -> None:
    """Print the table as Markdown."""
    torch.set_num_threads(1)
    config = load_config("lungs", overrides=_EVERYTHING)
    sam = load_bundled_sam(weights)
    strict = SamProposer(sam, config)
    loose = SamProposer(sam, load_config("lungs", overrides=(*_EVERYTHING, *_NO_THRESHOLDS)))
    refiner = SamRefiner(sam, config)
    print("| kind | structure | n | area | GT-SAM | best candidate | without thresholds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in KINDS:
        rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for index in range(images):
            phantom = make_phantom(kind, index, bank=bank)
            for row in _judge(phantom, config, strict, loose, refiner):
                rows[row[0]].append(row[1:])
        for name, figures in rows.items():
            area, *scores = np.mean(figures, axis=0)
            cells = " | ".join(f"{score:.3f}" for score in scores)
            print(f"| {kind} | {name} | {len(figures)} | {area:.1%} | {cells} |", flush=True)


def _judge(
    phantom: Phantom, config: Config, strict: SamProposer, loose: SamProposer, refiner: SamRefiner
) -> list[Row]:
    """Return the figures of each structure of a phantom."""
    working = make_working(phantom.image, config.image)
    proposals = strict(working)
    embedding = proposals.embedding
    assert isinstance(embedding, torch.Tensor)
    some = [candidate.mask for candidate in proposals.candidates]
    every = [candidate.mask for candidate in loose(working).candidates]
    rows = []
    for structure in phantom.structures:
        mask = structure.mask
        ys, xs = np.nonzero(mask)
        box = (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))
        refined = refiner(
            embedding,
            boxes=[box],
            working_size=(working.shape[0], working.shape[1]),
            original_size=(mask.shape[0], mask.shape[1]),
        )
        scores = dice(refined.masks[0], mask), _best(some, mask), _best(every, mask)
        rows.append((structure.name, float(mask.mean()), *scores))
    return rows


def _best(candidates: list[Mask], mask: Mask) -> float:
    # Phantoms have the size of the working image.
    return max((dice(candidate, mask) for candidate in candidates), default=0.0)


if __name__ == "__main__":
    typer.run(main)
