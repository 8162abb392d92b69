"""Training of the bundled models on phantoms alone: ``jobs/train_bundled.py`` runs it."""

from training.options import Progress, TrainOptions, warmup_cosine

__all__ = ["Progress", "TrainOptions", "warmup_cosine"]
