"""Pseudo-labels as the network sees them: images of one size, and a channel for each pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.masks import LabelMap, label_dtype
from salip_ray.schema import Image

IGNORED = -1
"""The target of a pixel that the loss ignores."""

_SHARDS_MIXED = 4
Target = npt.NDArray[np.int16]  #: channel of each pixel [h, w]: 0 background, or IGNORED
Matrix = npt.NDArray[np.float64]


class Example(TypedDict):
    """One image to learn from.

    ``image`` is float32 [3, size, size]. ``target`` is int64 [size, size]: a channel of the
    network, or :data:`IGNORED`. ``confidence`` is the trust in the label, 0 to 1.
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


def channels(class_ids: Sequence[int], ignore_index: int) -> Target:
    """Return a table from the values of a label map to channels: 0, then the classes in order.

    Classes that are not learnt become background.
    """
    table: Target = np.zeros(ignore_index + 1, np.int16)
    for channel, class_id in enumerate(class_ids, start=1):
        table[class_id] = channel
    table[ignore_index] = IGNORED
    return table


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


def augmented(picture: Image, target: Target, rng: np.random.Generator) -> tuple[Image, Target]:
    """Return an image and its target, rotated, scaled and shifted a little, in another light.

    Never mirrored, because left and right are different organs. Pixels from outside of the image
    are black and ignored.
    """
    size = picture.shape[0]
    matrix = _transform(size, rng)
    picture = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]
    target = cv2.warpAffine(  # type: ignore[assignment]
        target, matrix, (size, size), flags=cv2.INTER_NEAREST, borderValue=IGNORED
    )
    light = picture.astype(np.float32) / 255
    light = light ** rng.uniform(0.6, 1.6)
    light = (light - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.3:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), rng.uniform(0.4, 1.2)))
    light += rng.normal(0, rng.uniform(0, 0.06), light.shape[:2])[..., None]
    return np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8), target


def _transform(size: int, rng: np.random.Generator) -> Matrix:
    angle, scale = rng.uniform(-15, 15), rng.uniform(0.85, 1.2)
    matrix: Matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)  # type: ignore[assignment]
    matrix[:, 2] += rng.uniform(-0.08, 0.08, 2) * size
    return matrix


def label_map_of(channel_map: npt.NDArray[np.integer[Any]], class_ids: Sequence[int]) -> LabelMap:
    """Return the class ids of the network's channels [h, w]."""
    table = np.array([0, *class_ids])
    return table[channel_map].astype(label_dtype(int(table.max())))  # type: ignore[no-any-return]
