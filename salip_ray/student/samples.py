"""Pseudo-labels as the network sees them: images of one size, and a channel for each pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.schema import Image
from salip_ray.student.augmentation import augmented
from salip_ray.student.targets import IGNORED, Target, channels

_SHARDS_MIXED = 4


class Example(TypedDict):
    """One image to learn from.

    ``image`` is float32 [3, size, size]. ``target`` is int64 [size, size]: a channel of the
    network, or :data:`~salip_ray.student.targets.IGNORED`. ``confidence`` is the trust in the
    label, 0 to 1.
    """

    image: Tensor
    target: Tensor
    confidence: float


class Examples(Dataset[Example]):
    """Pseudo-labels as examples of one size. Augmented ones differ from epoch to epoch.

    Args:
        labels: the labels, without a transform.
        size: height and width of an example.
        augment: whether to vary an image each time.
        seed: with the epoch and the image it determines the augmentation, so that a resumed run
            sees the same examples.
    """

    def __init__(self, labels: PseudoLabels, size: int, *, augment: bool, seed: int) -> None:
        self.labels, self.size, self.augment, self.seed = labels, size, augment, seed
        self.epoch = 0
        self.channel_of = channels(list(labels.class_ids.values()), labels.ignore_index)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        sample = self.labels[index]
        picture = fit(sample["image"], self.size)
        target = _target(self.channel_of[sample["labels"]], picture.shape[:2], self.size)
        picture = _padded(picture, self.size)
        if self.augment:
            rng = np.random.default_rng((self.seed, self.epoch, index))
            picture, target = augmented(picture, target, rng)
        confidence = sample["confidence"]
        return Example(
            image=as_input(picture),
            target=torch.from_numpy(target.astype(np.int64)),
            # Unknown for outputs without confidences and for images without a label.
            confidence=1.0 if math.isnan(confidence) else float(confidence),
        )


class MixedOrder(Sampler[int]):
    """The order in which one of several workers reads: random, but a few shards at a time.

    A fully random order would read a part of another shard for every image, which over a network is
    many times as slow. All workers get the same number of images, so that they step together; if
    the images do not divide evenly, a few are read twice.

    Args:
        shards: the shard of each image.
        seed: with :attr:`epoch` it determines the order.
        rank: number of this worker.
        workers: number of workers.
    """

    def __init__(self, shards: Sequence[str], *, seed: int, rank: int = 0, workers: int = 1):
        self.shards, self.seed, self.rank, self.workers = tuple(shards), seed, rank, workers
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self.shards) / self.workers)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        members: dict[str, list[int]] = {}
        for index, shard in enumerate(self.shards):
            members.setdefault(shard, []).append(index)
        names = list(members)
        rng.shuffle(names)
        order: list[int] = []
        for start in range(0, len(names), _SHARDS_MIXED):
            mixed = [i for name in names[start : start + _SHARDS_MIXED] for i in members[name]]
            rng.shuffle(mixed)
            order += mixed
        order += order[: len(self) * self.workers - len(order)]
        return iter(order[self.rank :: self.workers])


def fit(image: Image, size: int) -> Image:
    """Return the image resized to a long side of ``size``, uint8 RGB [h, w, 3]."""
    scale = size / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    return np.asarray(resized, np.uint8)


def as_input(picture: Image) -> Tensor:
    """Return a square image as the network takes it: float32 [3, size, size].

    It has mean 0 and standard deviation 1, because scanners agree on neither.
    """
    values = picture.astype(np.float32)
    values = (values - values.mean()) / max(float(values.std()), 1.0)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def square_input(image: Image, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Return an image of any size as the network takes it, and the height and width it fills."""
    picture = fit(image, size)
    return as_input(_padded(picture, size)), (picture.shape[0], picture.shape[1])


def _padded(picture: Image, size: int) -> Image:
    padded = np.zeros((size, size, 3), np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = picture
    return padded


def _target(channel_map: Target, shape: Any, size: int) -> Target:
    height, width = shape
    target: Target = np.full((size, size), IGNORED, np.int16)
    target[:height, :width] = cv2.resize(
        channel_map, (width, height), interpolation=cv2.INTER_NEAREST
    )
    return target
