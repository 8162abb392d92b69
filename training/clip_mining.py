"""Crops of the candidates that a trained SAM proposes on phantoms, to train CLIP.

    python -m training.clip_mining --out training-output --count 600

Run it after the training of the bundled SAM and before that of CLIP. Masks drawn around structures
are cleaner than those of a small SAM, and wrong in other ways.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from salip_ray.cascade.proposer import SamProposer
from salip_ray.config import load_config
from salip_ray.models.bundled.phantoms import KINDS
from salip_ray.models.bundled.sam_net import load_bundled_sam
from training.bank import Split
from training.clip_candidates import LEAST_PIXELS, Verdict, judge
from training.clip_data import (
    GROUP,
    CropBank,
    Group,
    augmented,
    pack_group,
    read_crop_bank,
    write_crop_bank,
)

_STEM = "crops-mined"
# First phantom of the training bank: CLIP's other crops use smaller indices.
_FIRST = 100_000
_SEED = 20_240_613
# One phantom in so many does not show the organ of its kind.
_ABSENT_EVERY = 4
# The shipped thresholds with a coarse grid, as a group is small. Only the area limits of the task
# would matter, and it has none.
_PROPOSE = {
    "task": {"name": "mining", "prompts": {"organ": ["an organ"]}},
    "propose": {"points_per_side": 8},
}


def open_mined_bank(folder: Path) -> list[CropBank]:
    """Return the mined bank in a run's folder of crops as a list of one, or an empty list."""
    return [read_crop_bank(folder, _STEM)] if (folder / f"{_STEM}.done").exists() else []


def mine(folder: Path, count: int, sam: Path | None, *, workers: int = 2) -> None:
    """Write the proposals of a SAM on `count` augmented training phantoms into `folder`."""
    make = partial(_mined, sam=sam)
    with ProcessPoolExecutor(workers) as pool:
        write_crop_bank(folder, _STEM, count, pool.map(make, range(count), chunksize=16))


def _mined(index: int, *, sam: Path | None) -> Group:
    return mined_group(_proposer(sam), index, split="train", first=_FIRST)


@cache  # one a process
def _proposer(sam: Path | None) -> SamProposer:
    torch.set_num_threads(1)
    return SamProposer(load_bundled_sam(sam), load_config(_PROPOSE))


def mined_group(proposer: SamProposer, index: int, *, split: Split, first: int = 0) -> Group:
    """Make group `index`. The kinds take turns; each phantom is used once."""
    kind, number = KINDS[index % len(KINDS)], index // len(KINDS)
    rng = np.random.default_rng((_SEED, index))
    target = number % _ABSENT_EVERY != _ABSENT_EVERY - 1
    image, structures = augmented(kind, first + number, split, rng, target=target)
    masks = [c.mask for c in proposer(image).candidates if c.area >= LEAST_PIXELS]
    verdicts = judge(masks, structures, kind)
    chosen = _choose(verdicts, rng)
    return pack_group(image, [masks[i] for i in chosen], [verdicts[i] for i in chosen], kind, rng)


def _choose(verdicts: list[Verdict], rng: np.random.Generator) -> list[int]:
    """Return at most `GROUP` indices: the best for the organ, then a random choice of others."""
    order = sorted(range(len(verdicts)), key=lambda index: -verdicts[index].grade)
    best, others = order[: GROUP // 2], order[GROUP // 2 :]
    return best + [others[i] for i in rng.permutation(len(others))[: GROUP - len(best)]]


def main() -> None:
    """Mine with the shipped SAM, or another file of its weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("training-output"))
    parser.add_argument("--count", type=int, default=600, help="phantoms, all kinds together")
    parser.add_argument("--sam", type=Path, help="SAM's safetensors, if not the shipped ones")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    mine(arguments.out / "crops", arguments.count, arguments.sam, workers=arguments.workers)


if __name__ == "__main__":
    main()
