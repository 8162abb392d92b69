"""Scores of the bundled SAM on phantoms, as the model card gives them.

python -m salip_ray.models.bundled.training.sam_report --split tune --phantoms 20
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
from salip_ray.models.bundled.training.bank import open_bank
from salip_ray.models.bundled.training.sam_eval import prompt_ious
from salip_ray.models.bundled.training.sam_prompts import TARGET_ORGANS

#: The generator's knobs for this model, chosen on the tuning bank.
GENERATOR = {
    "points_per_side": 16,
    "pred_iou_thresh": 0.7,
    "stability_score_thresh": 0.6,
    "stability_score_offset": 1.0,
    "box_nms_thresh": 0.85,
    "min_mask_region_area": 60,
}


def oracle_dice(sam: Sam, kind: str, split: str, count: int) -> tuple[float, float]:
    """What a perfect retriever would reach: mean Dice of the best proposals, and their number.

    Of each target organ the automatic mask of highest IoU is taken (of lungs: one each); their
    union is compared with the whole target.
    """
    generator = SamAutomaticMaskGenerator(sam, **GENERATOR)
    dices, counts = [], []
    for index in range(count):
        phantom = make_phantom(kind, index, bank=split)
        proposals = [p["segmentation"] for p in generator.generate(phantom.image)]
        counts.append(len(proposals))
        union = np.zeros(phantom.image.shape[:2], bool)
        for organ in TARGET_ORGANS[kind]:
            mask = phantom.mask(organ)
            if mask.any() and proposals:
                union |= max(proposals, key=lambda p: (p & mask).sum() / (p | mask).sum())
        target = phantom.mask(TARGETS[kind])
        dices.append(2 * (union & target).sum() / (union.sum() + target.sum()))
    return float(np.mean(dices)), float(np.mean(counts))


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
