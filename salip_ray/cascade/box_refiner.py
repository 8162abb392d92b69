"""A refiner that prompts a model of the SAM family with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salip_ray.cascade import sam_ops
from salip_ray.cascade.interfaces import RefinedMasks
from salip_ray.schema import Box, Size


class BoxRefiner:
    """Predict one mask per box; a family adds the operations of its model.

    Args:
        threshold: logit above which a pixel belongs to a mask.
        offset: of the two masks that the stability score compares.
    """

    batch_size: int

    def __init__(self, threshold: float, offset: float) -> None:
        self.threshold, self.offset = threshold, offset

    def set_batch_size(self, size: int) -> None:
        """Decode ``size`` boxes at a time from now on."""
        self.batch_size = size

    def decode_boxes(self, embedding: Any, size: Size, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return low-resolution logits [n, h, w] and predicted IoUs [n] of boxes [n, 4] xyxy."""
        raise NotImplementedError

    def upscale(self, logits: Tensor, size: Size, output_size: Size) -> Tensor:
        """Resize logits [n, h, w] of an image of ``size`` to ``output_size``."""
        raise NotImplementedError

    def __call__(
        self,
        embedding: Any,
        *,
        boxes: Sequence[Box],
        working_size: Size,
        original_size: Size,
    ) -> RefinedMasks:
        """Predict one mask per box; its logits are resized to ``original_size`` at once."""
        masks = np.zeros((len(boxes), *original_size), np.bool_)
        ious, stability = torch.zeros(len(boxes)), torch.zeros(len(boxes))
        for start in range(0, len(boxes), self.batch_size):
            batch = torch.tensor(boxes[start : start + self.batch_size], dtype=torch.float64)
            low_res, predicted = self.decode_boxes(embedding, working_size, batch)
            # One by one: the full-size logits of a batch might not fit into memory.
            for index, logits in enumerate(low_res, start):
                full = self.upscale(logits[None], working_size, original_size)
                masks[index] = (full[0] > self.threshold).cpu().numpy()
                stability[index] = sam_ops.stability_score(full, self.threshold, self.offset)[0]
            ious[start : start + self.batch_size] = predicted
        return RefinedMasks(masks, ious.numpy(), stability.numpy())
