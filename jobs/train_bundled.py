"""Train the bundled models on phantoms.

    python jobs/train_bundled.py --model sam --out training-output --minutes 80

Run the same command again to resume. With --init a new run starts from exported weights, such as
the shipped ones: give it a lower --peak-rate. On CPUs, set
GLIBC_TUNABLES=glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184
before the start: page faults otherwise take half of the time.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from training.options import TrainOptions


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("sam", "clip", "all"), default="all")
    parser.add_argument("--out", type=Path, default=Path("training-output"))
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="wall-clock time per model (default: 90)")
    budget.add_argument("--steps", type=int, help="optimiser steps per model, instead of minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8, help="images per step")
    parser.add_argument("--bank-size", type=int, default=3000, help="training phantoms per kind")
    parser.add_argument("--init", type=Path, help="weights to start from; needs one --model")
    parser.add_argument(
        "--peak-rate", type=float, help="highest learning rate (default: the recipe's)"
    )
    parser.add_argument(
        "--evenly", action="store_true", help="with --init: do not draw hard phantoms more often"
    )
    arguments = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    model = arguments.pop("model")
    if arguments["init"] is not None and model == "all":
        parser.error("--init needs --model sam or --model clip: weights belong to one model")
    if arguments["steps"] is None and arguments["minutes"] is None:
        arguments["minutes"] = 90.0
    options = TrainOptions(**arguments)
    if model in ("sam", "all"):
        from training.sam_train import train_sam

        logging.info("weights: %s", train_sam(options))
    if model in ("clip", "all"):
        from training.clip_train import train_clip

        logging.info("weights: %s", train_clip(options))


if __name__ == "__main__":
    main()
