"""Scores of the bundled SAM on phantoms, as the model card gives them.

python -m training.sam_report --split tune --phantoms 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from salip_ray.models.bundled.phantoms import KINDS, TARGETS, make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.schema import Mask
from training.bank import open_bank
from training.sam_eval import prompt_ious
from training.sam_prompts import TARGET_ORGANS

#: Settings of the generator for this model, chosen on the tuning bank.
GENERATOR = {
    "points_per_side": 16,
    "pred_iou_thresh": 0.7,
    "stability_score_thresh": 0.6,
    "stability_score_offset": 1.0,
    "box_nms_thresh": 0.85,
    "min_mask_region_area": 60,
}


def oracle_dice(sam: Sam, kind: str, split: str, count: int) -> tuple[float, float]:
    """Return the mean Dice of the best proposals (a perfect retriever), and their mean number.

    The target is covered by the most similar automatic mask, or by one for each of its organs (both
    lungs), whichever is better.
    """
    generator = SamAutomaticMaskGenerator(sam, **GENERATOR)
    dices, counts = [], []
    for index in range(count):
        phantom = make_phantom(kind, index, bank=split)
        proposals = [proposal["segmentation"] for proposal in generator.generate(phantom.image)]
        target = phantom.mask(TARGETS[kind])
        organs = [phantom.mask(organ) for organ in TARGET_ORGANS[kind]]
        whole = _most_like(target, proposals)
        parts = np.any([_most_like(organ, proposals) for organ in organs], axis=0)
        dices.append(max(_dice(whole, target), _dice(parts, target)))
        counts.append(len(proposals))
    return float(np.mean(dices)), float(np.mean(counts))


def _most_like(mask: Mask, proposals: list[Mask]) -> Mask:
    """Return the proposal of highest Dice, or an empty mask if there is none or no target."""
    if not proposals or not mask.any():
        return np.zeros_like(mask)
    return max(proposals, key=lambda proposal: _dice(proposal, mask))


def _dice(a: Mask, b: Mask) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def main() -> None:
    """Print one line per kind of phantom."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="safetensors (default: the shipped ones)")
    parser.add_argument("--split", choices=("tune", "test"), default="test")
    parser.add_argument("--phantoms", type=int, default=100, help="per kind")
    parser.add_argument("--banks", type=Path, default=Path("training-output/report-banks"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sam = load_bundled_sam(arguments.weights)
    out = Console(width=200)
    out.print("| phantoms | box IoU | best of 3 by a point | chosen of 3 | oracle Dice | masks |")
    out.print("| --- | --- | --- | --- | --- | --- |")
    for kind in KINDS:
        bank = open_bank(arguments.banks, kind, arguments.split, arguments.phantoms, workers=1)
        ious = prompt_ious(sam, [bank])
        dice, masks = oracle_dice(sam, kind, arguments.split, arguments.phantoms)
        cells = [ious[f"{kind}/{name}"] for name in ("box", "point", "chosen")] + [dice]
        row = " | ".join(f"{cell:.3f}" for cell in cells)
        out.print(f"| {kind} | {row} | {masks:.0f} |")


if __name__ == "__main__":
    main()
