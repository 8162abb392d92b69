"""SAM 2 and 2.1 as proposer and refiner, with the mask generator of SAM v1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salip_ray.cascade.box_refiner import BoxRefiner
from salip_ray.cascade.interfaces import ModelContext
from salip_ray.cascade.proposer import SamProposer
from salip_ray.models.registry import shares_embedding
from salip_ray.models.sam.decoder import Decoded
from salip_ray.models.sam.sam2 import Levels, load_sam2
from salip_ray.schema import Image, Size


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


class Sam2Refiner(BoxRefiner):
    """Segment what lies in a box, with SAM 2.

    Args:
        context: of the factory; ``propose.stability_score_offset`` is used.
    """

    embedding = "sam2"

    def __init__(self, context: ModelContext) -> None:
        self.sam2 = load_sam2(context, "refine", encoder=not shares_embedding(context.config))
        super().__init__(self.sam2.threshold, context.config.propose.stability_score_offset)

    def encode(self, working: Image) -> Levels:
        """Return the three levels of a working image, uint8 RGB [H, W, 3]."""
        return self.sam2.encode([working])[0]

    def decode_boxes(self, embedding: Levels, size: Size, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return low-resolution logits [n, h, w] and predicted IoUs [n] of boxes [n, 4] xyxy."""
        logits, ious = self.sam2.decode(embedding, size, boxes=boxes, multimask=False)
        return logits[:, 0], ious[:, 0]

    def upscale(self, logits: Tensor, size: Size, output_size: Size) -> Tensor:  # noqa: ARG002
        """Resize logits [n, h, w] to ``output_size``."""
        return self.sam2.upscale(logits, output_size)
