"""SAM 2 and 2.1 as proposer and refiner, with the mask generator of SAM v1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from salip_ray.cascade import sam_ops
from salip_ray.cascade.interfaces import ModelContext, RefinedMasks
from salip_ray.cascade.proposer import SamProposer
from salip_ray.models.registry import shares_embedding
from salip_ray.models.sam.decoder import Decoded
from salip_ray.models.sam.sam2 import Levels, load_sam2
from salip_ray.schema import Box, Image, Size


class Sam2Proposer(SamProposer):
    """Run SAM's automatic mask generation with SAM 2, as ``SAM2AutomaticMaskGenerator`` does.

    Args:
        context: of the factory; the section ``propose`` has the settings of the generator.
    """

    embedding = "sam2"

    def __init__(self, context: ModelContext) -> None:
        self.sam2 = load_sam2(context, "propose")
        super().__init__(self.sam2.model, context.config)

    @property
    def threshold(self) -> float:
        """The logit above which a pixel belongs to a mask."""
        return self.sam2.threshold

    def encode_views(self, views: Sequence[Image]) -> Sequence[Levels]:
        """Return the three levels of each view, uint8 RGB [h, w, 3]."""
        return self.sam2.encode(views)

    def decode_points(self, embedding: Levels, size: Size, points: Tensor) -> Decoded:
        """Decode three masks for each of n points [n, 2] of a view, without those of low IoU."""
        logits, ious = self.sam2.decode(embedding, size, points=points, multimask=True)
        least = self.settings.pred_iou_thresh
        keep = ious > least if least > 0 else torch.ones_like(ious, dtype=torch.bool)
        return Decoded(logits[keep], ious[keep], keep.nonzero(as_tuple=True)[0])

    def upscale(self, logits: Tensor, size: Size) -> Tensor:
        """Resize logits [n, h, w] of a view to its size."""
        return self.sam2.upscale(logits, size)


class Sam2Refiner:
    """Segment what lies in a box, with SAM 2.

    Args:
        context: of the factory; ``propose.stability_score_offset`` is used.
    """

    embedding = "sam2"

    def __init__(self, context: ModelContext) -> None:
        self.sam2 = load_sam2(context, "refine", encoder=not shares_embedding(context.config))
        self.offset = context.config.propose.stability_score_offset

    def set_batch_size(self, size: int) -> None:
        """Decode ``size`` boxes at a time from now on."""
        self.batch_size = size

    def encode(self, working: Image) -> Levels:
        """Return the three levels of a working image, uint8 RGB [H, W, 3]."""
        return self.sam2.encode([working])[0]

    def __call__(
        self,
        embedding: Levels,
        *,
        boxes: Sequence[Box],
        working_size: Size,
        original_size: Size,
    ) -> RefinedMasks:
        """Predict one mask per box; its logits are resized to ``original_size`` at once."""
        masks = np.zeros((len(boxes), *original_size), np.bool_)
        ious, stability = torch.zeros(len(boxes)), torch.zeros(len(boxes))
        threshold = self.sam2.threshold
        for start in range(0, len(boxes), self.batch_size):
            batch = torch.tensor(boxes[start : start + self.batch_size], dtype=torch.float64)
            low_res, predicted = self.sam2.decode(
                embedding, working_size, boxes=batch, multimask=False
            )
            # One by one: the full-size logits of a batch might not fit into memory.
            for index, logits in enumerate(low_res, start):
                full = self.sam2.upscale(logits, original_size)
                masks[index] = (full[0] > threshold).cpu().numpy()
                stability[index] = sam_ops.stability_score(full, threshold, self.offset)[0]
            ious[start : start + self.batch_size] = predicted[:, 0]
        return RefinedMasks(masks, ious.numpy(), stability.numpy())
