"""Training of the bundled models on phantoms only. Run it with ``jobs/train_bundled.py``."""

from training.options import Progress, TrainOptions, warmup_cosine

__all__ = ["Progress", "TrainOptions", "warmup_cosine"]
