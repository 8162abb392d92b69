"""Toy models that fail, on every image or on those of an odd height."""

from __future__ import annotations

import os

import numpy as np

from salip_ray import Instances
from toy_models import Proposer, Refiner, Retriever


class Raises:
    def __init__(self, context):
        raise ValueError("there is no licence\nfor this model")


class Hungry(Proposer):
    """Needs memory for each point, and fits 8 of them."""

    def set_batch_size(self, size):
        self.size = size

    def __call__(self, working):
        if self.size > 8:
            raise MemoryError("the points do not fit")
        return super().__call__(working)


class Starving(Proposer):
    """Needs more memory than there is."""

    def __call__(self, working):
        return np.empty(1 << 60, np.uint8)


class Crashing(Proposer):
    """Ends its process on images of an odd height."""

    def __call__(self, working):
        if working.shape[0] % 2:
            os._exit(7)
        return super().__call__(working)


class NaNScores(Proposer):
    def __call__(self, working):
        result = super().__call__(working)
        return Instances(np.full(len(result.scores), np.nan), result.masks)


class WrongShape(Proposer):
    def __call__(self, working):
        result = super().__call__(working)
        return Instances(result.scores, np.asarray(result.masks)[:, ::2])


class NaNRanks(Retriever):
    def __call__(self, working, candidates):
        return np.full((len(candidates), self.classes), np.nan)


class SoftMasks(Refiner):
    def __call__(self, embedding, *, boxes, working_size, original_size):
        return np.full((len(boxes), *original_size), 0.7)
