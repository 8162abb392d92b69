"""Step 5, refine: SAM prompted with boxes, on the embedding that the proposals were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from salip_ray.cascade import prompting
from salip_ray.cascade.prompting import Size
from salip_ray.config import Config
from salip_ray.rows import Box, Image, Mask


@dataclass(frozen=True)
class RefinedMasks:
    """One mask per box, on the original pixels.

    ``masks`` is bool [n, H, W]; ``predicted_iou`` and ``stability`` are float32 [n], the latter
    NaN for a mask that is empty at both of its thresholds.
    """

    masks: npt.NDArray[np.bool_]
    predicted_iou: npt.NDArray[np.float32]
    stability: npt.NDArray[np.float32]

    @property
    def union(self) -> Mask:
        """All masks as one, [H, W]."""
        return np.asarray(self.masks.any(axis=0))


class Refiner:
    """Segments what lies in a box.

    Args:
        sam: a SAM in eval mode, on the device to use. Its image encoder is needed for
            :meth:`encode` alone.
        config: ``refine.batch_size`` and ``propose.stability_score_offset`` are used.
    """

    def __init__(self, sam: Sam, config: Config) -> None:
        self.sam = sam
        self.batch_size = config.refine.batch_size
        self.offset = config.propose.stability_score_offset

    def encode(self, working: Image) -> Tensor:
        """The working image's embedding by this SAM, where its weights are not the proposer's."""
        return prompting.encode(self.sam, working)

    def __call__(
        self,
        embedding: Tensor,
        *,
        boxes: Sequence[Box],
        working_size: Size,
        original_size: Size,
    ) -> RefinedMasks:
        """Predict one mask per box.

        The logits are brought to the original size before they are cut at SAM's threshold, so the
        outline is as fine as the image, not as the working image.

        Args:
            embedding: float [1, C, h, w] of the working image.
            boxes: xyxy, inclusive, in pixels of the working image.
            working_size: height, width.
            original_size: height, width.
        """
        masks = np.zeros((len(boxes), *original_size), dtype=np.bool_)
        ious, stability = torch.zeros(len(boxes)), torch.zeros(len(boxes))
        embedding = embedding.to(self.sam.device, torch.float32)
        threshold = self.sam.mask_threshold
        for start in range(0, len(boxes), self.batch_size):
            batch = torch.tensor(boxes[start : start + self.batch_size], dtype=torch.float64)
            low_res, predicted = prompting.decode(
                self.sam, embedding, working_size, boxes=batch, multimask=False
            )
            # One by one: full-size logits of a batch need not fit into memory.
            for index, logits in enumerate(low_res, start):
                full = prompting.upscale(self.sam, logits, working_size, original_size)
                masks[index] = (full[0] > threshold).cpu().numpy()
                stability[index] = prompting.stability_score(full, threshold, self.offset)[0]
            ious[start : start + self.batch_size] = predicted[:, 0]
        return RefinedMasks(masks, ious.numpy(), stability.numpy())
