"""The options of a student's training: with the labels, they decide its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from salip_ray.errors import ConfigError

Network = Literal["unet", "sam"]

_SIDE_UNIT = 16  # the network halves the image four times
_SAM_SIDE = 256  # of the bundled SAM's input


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """The options of a training run.

    Attributes:
        network: a ``unet`` that starts from random weights, or the image encoder of the bundled
            ``sam`` followed by a small decoder, which needs a ``size`` of 256.
        size: long side of the images that the network sees, in pixels; a multiple of 16.
        width: channels at the finest resolution of the U-Net or decoder; each lower resolution has
            twice as many.
        epochs: how often every image is shown.
        batch_size: images per step and worker.
        rate: the highest learning rate; it falls to 0 along half a cosine. The encoder of ``sam``
            gets a tenth of it.
        seed: seed of the split, the weights, the order and the augmentation.
        val_share: share of the images that choose the best epoch and are not trained on. With 0,
            the last epoch counts.
        group_by: what the split keeps together (see :mod:`salip_ray.datasets.splits`).
        min_confidence: of the labels (:class:`~salip_ray.datasets.PseudoLabels`), which leave out
            images with a label of lower confidence; here for the record.
        confidence_power: the weight of an image is its confidence to this power; 0 weights all
            images alike.
        ignore_disagreement: of the labels, which then ignore pixels on which candidate and refined
            mask differ; here for the record.
        workers: processes that train together, each with a GPU if the cluster has enough.
        loaders: processes that read images for each worker; 0 reads in the worker itself.

    Raises:
        ConfigError: a value is out of range.
    """

    network: Network = "unet"
    size: int = 256
    width: int = 16
    epochs: int = 40
    batch_size: int = 8
    rate: float = 2e-3
    seed: int = 0
    val_share: float = 0.1
    group_by: str = "image"
    min_confidence: float = 0.0
    confidence_power: float = 1.0
    ignore_disagreement: bool = True
    workers: int = 1
    loaders: int = 0

    def __post_init__(self) -> None:
        if self.network not in get_args(Network):
            raise ConfigError(
                f"network must be one of {', '.join(get_args(Network))}, found {self.network}"
            )
        if self.network == "sam" and self.size != _SAM_SIDE:
            raise ConfigError(
                f"size must be {_SAM_SIDE} with the network sam, whose encoder has learnt from "
                f"such images, found {self.size}"
            )
        if self.size < 2 * _SIDE_UNIT or self.size % _SIDE_UNIT:
            raise ConfigError(
                f"size must be a multiple of {_SIDE_UNIT} from {2 * _SIDE_UNIT} on, "
                f"found {self.size}"
            )
        for name in ("width", "epochs", "batch_size", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("seed", "loaders", "confidence_power"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name} must be a number and not negative, found {getattr(self, name)}"
                )
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"rate must be a number above 0, found {self.rate}")
        if not 0 <= self.val_share < 1:
            raise ConfigError(f"val_share must be from 0 to below 1, found {self.val_share}")
