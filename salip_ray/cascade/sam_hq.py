"""SAM-HQ as proposer and refiner, with the mask generator of SAM v1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from salip_ray.cascade import sam_ops
from salip_ray.cascade.box_refiner import BoxRefiner
from salip_ray.cascade.interfaces import ModelContext
from salip_ray.cascade.proposer import SamProposer
from salip_ray.models.registry import shares_embedding
from salip_ray.models.sam.decoder import Decoded
from salip_ray.models.sam.sam_hq import Features, HqMaskDecoder, load_sam_hq
from salip_ray.schema import Image, Size


class SamHq:
    """The operations of SAM-HQ: encode, decode prompts.

    Args:
        sam: of :func:`~salip_ray.models.sam.sam_hq.load_sam_hq`.
    """

    def __init__(self, sam: Sam) -> None:
        self.sam = sam
        self.decoder: HqMaskDecoder = sam.mask_decoder

    @torch.no_grad()
    def encode(self, views: Sequence[Image]) -> list[Features]:
        """Return the features of each view, uint8 RGB [h, w, 3], computed in one batch."""
        encoder = self.sam.image_encoder
        dtype = encoder.pos_embed.dtype
        x = encoder.patch_embed(sam_ops.pixels(self.sam, views).to(dtype))
        x = x + encoder.pos_embed
        early = None
        for block in encoder.blocks:
            x = block(x)
            if early is None and not block.window_size:
                early = x
        assert early is not None, "every SAM-HQ has blocks that attend to the whole image"
        image = encoder.neck(x.permute(0, 3, 1, 2))
        fine = self.decoder.features(image, early)
        pairs = zip(image.float().split(1), fine.float().split(1), strict=True)
        return [{"image": one, "fine": features} for one, features in pairs]

    @torch.no_grad()
    def decode(
        self,
        features: Features,
        size: Size,
        *,
        points: Tensor | None = None,
        boxes: Tensor | None = None,
        min_iou: float | None = None,
    ) -> Decoded:
        """Predict one mask for each of n points or boxes of a view of ``size``.

        Args:
            features: of the view.
            size: its height and width.
            points: [n, 2] xy in its pixels.
            boxes: [n, 4] xyxy in its pixels.
            min_iou: exclusive; masks of a lower predicted IoU are dropped. None drops none.
        """
        prompt = sam_ops.embed_prompts(self.sam, size, points, boxes)
        return self.decoder.decode(
            features,
            self.sam.prompt_encoder.get_dense_pe(),
            prompt,
            multimask=points is not None,
            threshold=min_iou,
        )


class SamHqProposer(SamProposer):
    """Run SAM's automatic mask generation with SAM-HQ.

    Args:
        context: of the factory; the section ``propose`` has the settings of the generator.
    """

    embedding = "sam-hq"

    def __init__(self, context: ModelContext) -> None:
        self.hq = SamHq(load_sam_hq(context, "propose"))
        super().__init__(self.hq.sam, context.config)

    def encode_views(self, views: Sequence[Image]) -> Sequence[Features]:
        """Return the features of each view, uint8 RGB [h, w, 3]."""
        return self.hq.encode(views)

    def decode_points(self, embedding: Features, size: Size, points: Tensor) -> Decoded:
        """Decode the best mask of each of n points [n, 2] of a view, without those of low IoU."""
        least = self.settings.pred_iou_thresh
        return self.hq.decode(embedding, size, points=points, min_iou=least if least > 0 else None)


class SamHqRefiner(BoxRefiner):
    """Segment what lies in a box, with SAM-HQ.

    Args:
        context: of the factory; ``propose.stability_score_offset`` is used.
    """

    embedding = "sam-hq"

    def __init__(self, context: ModelContext) -> None:
        encoder = not shares_embedding(context.config)
        self.hq = SamHq(load_sam_hq(context, "refine", encoder=encoder))
        offset = context.config.propose.stability_score_offset
        super().__init__(float(self.hq.sam.mask_threshold), offset)

    def encode(self, working: Image) -> Features:
        """Return the features of a working image, uint8 RGB [H, W, 3]."""
        return self.hq.encode([working])[0]

    def decode_boxes(self, embedding: Features, size: Size, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return low-resolution logits [n, h, w] and predicted IoUs [n] of boxes [n, 4] xyxy."""
        logits, ious, _ = self.hq.decode(embedding, size, boxes=boxes)
        return logits, ious

    def upscale(self, logits: Tensor, size: Size, output_size: Size) -> Tensor:
        """Resize logits [n, h, w] of an image of ``size`` to ``output_size``."""
        return sam_ops.upscale(self.hq.sam, logits, size, output_size)
