"""Batches for SAM's training: a pure function of (seed, step), so that a resumed run repeats none.

A generator seeded with (seed, 1234) decides everything random about step 1,234: the phantoms, their
augmentation and the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salip_ray.models.bundled.sam_net import GRID
from training.augment import Sample, augment
from training.bank import Bank
from training.sam_prompts import Prompts, draw_prompts

#: Relative frequency of each kind: lungs are the hardest, as their outlines are faint and varied.
_SHARES = {"chest_xray": 4.0, "brain_mri": 3.0, "fetal_ultrasound": 3.0}
_PLANE = 4 * GRID  #: side of target masks and of the decoder's masks
_MEAN = np.array((123.675, 116.28, 103.53), np.float32)[:, None, None]  # Sam.pixel_mean
_STD = np.array((58.395, 57.12, 57.375), np.float32)[:, None, None]


@dataclass(frozen=True, slots=True)
class Batch:
    """B images, P points and Q boxes on them, and the masks of their structures.

    Attributes:
        images: float32 [B, 3, 256, 256], normalised; 0 where SAM pads.
        planes: float32 [B, S, 64, 64], coverage 0..1 of structure s in each cell of 4x4 pixels.
        points, point_image, point_targets: [P, 2] (x, y in pixels), [P], [P, 3] structures by role.
        boxes, box_image, box_targets: [Q, 4] (xyxy inclusive), [Q], [Q].
        owner_image, owner_class, owner_planes: [A], [A], [A, 64, 64]: every structure of an image's
            kind, visible or not, with its class over all kinds, for the auxiliary head.
    """

    images: Tensor
    planes: Tensor
    points: Tensor
    point_image: Tensor
    point_targets: Tensor
    boxes: Tensor
    box_image: Tensor
    box_targets: Tensor
    owner_image: Tensor
    owner_class: Tensor
    owner_planes: Tensor

    def to(self, device: str) -> Batch:
        """Return the same batch on another device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class SamBatches:
    """The stream of batches over the training banks of all kinds."""

    def __init__(
        self,
        banks: list[Bank],
        *,
        seed: int,
        batch_size: int,
        chances: Sequence[Tensor] | None = None,
    ) -> None:
        """Draw each phantom of a bank by its probability in `chances` [N]; else equally."""
        self._banks = banks
        self._chances = None if chances is None else [c.numpy() for c in chances]
        self._seed = seed
        self._batch_size = batch_size
        self._first_class = np.cumsum([0] + [len(bank.names) for bank in banks])
        self.classes = int(self._first_class[-1])  #: structures over all kinds
        self._planes = max(len(bank.names) for bank in banks)
        shares = np.array([_SHARES[bank.kind] for bank in banks])
        self._shares = shares / shares.sum()

    def batch(self, step: int) -> Batch:
        """Return the batch of one step, always the same for this seed and these banks."""
        rng = np.random.default_rng((self._seed, step))
        drawn = [self._draw(rng) for _ in range(self._batch_size)]
        planes = np.zeros((self._batch_size, self._planes, _PLANE, _PLANE), np.float32)
        for n, (which, sample, _) in enumerate(drawn):
            planes[n, : len(self._banks[which].names)] = _coverage(
                sample, len(self._banks[which].names)
            )
        owners = [
            (n, s, self._first_class[which] + s)
            for n, (which, _, _) in enumerate(drawn)
            for s in range(len(self._banks[which].names))
        ]
        owner_image, owner_plane, owner_class = (
            np.array(column) for column in zip(*owners, strict=True)
        )
        prompts = [drawing[2] for drawing in drawn]
        image_index = np.arange(self._batch_size)
        return Batch(
            images=torch.from_numpy(np.stack([_normalised(sample) for _, sample, _ in drawn])),
            planes=torch.from_numpy(planes),
            points=torch.from_numpy(np.concatenate([p.points for p in prompts])),
            point_image=torch.from_numpy(image_index.repeat(len(prompts[0].points))),
            point_targets=torch.from_numpy(np.concatenate([p.point_targets for p in prompts])),
            boxes=torch.from_numpy(np.concatenate([p.boxes for p in prompts])),
            box_image=torch.from_numpy(image_index.repeat(len(prompts[0].boxes))),
            box_targets=torch.from_numpy(np.concatenate([p.box_targets for p in prompts])),
            owner_image=torch.from_numpy(owner_image),
            owner_class=torch.from_numpy(owner_class),
            owner_planes=torch.from_numpy(planes[owner_image, owner_plane]),
        )

    def _draw(self, rng: np.random.Generator) -> tuple[int, Sample, Prompts]:
        """Draw a phantom; return the index of its bank, the augmented phantom and prompts."""
        while True:
            which = int(rng.choice(len(self._banks), p=self._shares))
            bank = self._banks[which]
            chances = None if self._chances is None else self._chances[which]
            image, labels = bank.phantom(int(rng.choice(len(bank), p=chances)))
            sample = augment(image, labels, bank.kind, rng)
            prompts = draw_prompts(sample, bank.names, bank.roles, bank.kind, rng)
            if prompts is not None:
                return which, sample, prompts


def _coverage(sample: Sample, structures: int) -> npt.NDArray[np.float32]:
    """Return the share [S, 64, 64] of each cell that structure s covers."""
    coverage = np.zeros((structures, _PLANE, _PLANE), np.float32)
    shown = int(np.bitwise_or.reduce(sample.labels, axis=None))
    for s in range(structures):
        if shown >> s & 1:
            mask = ((sample.labels >> s) & 1).astype(np.float32)
            coverage[s] = cv2.resize(mask, (_PLANE, _PLANE), interpolation=cv2.INTER_AREA)
    return coverage


def _normalised(sample: Sample) -> npt.NDArray[np.float32]:
    """Return [3, S, S] as `Sam.preprocess` does: normalised, then padded with zeros."""
    height, width = sample.content
    out = np.zeros((3, *sample.image.shape), np.float32)
    out[:, :height, :width] = (sample.image[:height, :width] - _MEAN) / _STD
    return out
