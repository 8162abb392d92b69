"""SAM 2 and 2.1 on single images, through ``transformers``: the encoder and decoder of Sam2Model.

The generator is that of SAM v1 (:mod:`salip_ray.cascade.proposer`), as in the official
``SAM2AutomaticMaskGenerator``. The image is squeezed to a square instead of padded, and the
embedding has three levels, which travel as named tensors. The folder ``weights.model`` is one of
``facebook/sam2.1-hiera-*`` (tiny, small, base-plus, large).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.functional import resize

from salip_ray.cascade import sam_ops
from salip_ray.cascade.interfaces import ModelContext, RefinedMasks
from salip_ray.cascade.proposer import SamProposer
from salip_ray.models.hugging_face import frozen, load_folder, pretrained
from salip_ray.models.registry import shares_embedding
from salip_ray.models.sam.decoder import Decoded
from salip_ray.schema import Box, Image, Size

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEVELS = ("fine", "middle", "coarse")  #: of an embedding: strides 4, 8 and 16
_EXAMPLE = "hf-hub:facebook/sam2.1-hiera-tiny"
_THRESHOLD = 0.0  # of a mask's logits

Levels = Mapping[str, Tensor]


class Sam2:
    """The operations of SAM 2 on images: encode, decode prompts, upscale.

    Args:
        model: a Sam2Model in eval mode.
        precision: ``fast`` runs the encoder in bfloat16.
    """

    def __init__(self, model: Any, precision: str = "exact") -> None:
        self.model = model
        self.device = model.shared_image_embedding.positional_embedding.device
        self.side = int(model.prompt_encoder.input_image_size)
        self.dtype = torch.bfloat16 if precision == "fast" else torch.float32
        model.vision_encoder.to(self.dtype)

    @torch.no_grad()
    def encode(self, views: Sequence[Image]) -> list[Levels]:
        """Return the embedding of each view, uint8 RGB [h, w, 3], computed in one batch."""
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (_MEAN, _STD))
        pixels = []
        for view in views:
            planes = torch.as_tensor(np.ascontiguousarray(view), device=self.device)
            planes = planes.permute(2, 0, 1).float() / 255
            square = resize(planes, [self.side, self.side], antialias=True)
            pixels.append((square - mean) / std)
        levels = self.model.get_image_embeddings(torch.stack(pixels).to(self.dtype))
        return [
            dict(zip(_LEVELS, (level[index : index + 1].float() for level in levels), strict=True))
            for index in range(len(views))
        ]

    @torch.no_grad()
    def decode(
        self,
        embedding: Levels,
        size: Size,
        *,
        points: Tensor | None = None,
        boxes: Tensor | None = None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Predict masks for n prompts, each a foreground point or a box.

        Args:
            embedding: of the view that the prompts lie on.
            size: height, width of that view.
            points: [n, 2] xy in its pixels.
            boxes: [n, 4] xyxy in its pixels.
            multimask: predict three masks a prompt instead of one.

        Returns:
            Low-resolution logits [n, m, h, w] and predicted IoUs [n, m], m being 3 or 1.
        """
        height, width = size
        scale = torch.tensor([self.side / width, self.side / height], dtype=torch.float64)
        prompt: dict[str, Tensor] = {}
        if points is not None:
            prompt["input_points"] = (points * scale).float()[None, :, None].to(self.device)
        if boxes is not None:
            prompt["input_boxes"] = (boxes * scale.repeat(2)).float()[None].to(self.device)
        answer = self.model(
            image_embeddings=[embedding[name].to(self.device) for name in _LEVELS],
            multimask_output=multimask,
            **prompt,
        )
        return answer.pred_masks[0], answer.iou_scores[0]

    @staticmethod
    def upscale(logits: Tensor, size: Size) -> Tensor:
        """Resize low-resolution logits [n, h, w] to [n, H, W]."""
        return F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0]


def load_sam2(context: ModelContext, role: str, *, encoder: bool = True) -> Sam2:
    """Load the folder ``weights.model``.

    Args:
        context: of the factory.
        role: ``propose`` or ``refine``, for messages.
        encoder: keep the image encoder, which has most of the weights.

    Raises:
        ConfigError: no folder is named.
        WeightsError: the folder holds no such model.
        MissingDependencyError: ``transformers`` is not installed.
    """
    model = load_folder(context, f"{role}.model sam2", "SAM 2 of Hugging Face", _EXAMPLE, _load)
    if not encoder:
        model.vision_encoder = torch.nn.Identity()
    return Sam2(frozen(model, context), context.precision)


def _load(folder: str) -> Any:
    from transformers import Sam2Model

    return pretrained(Sam2Model, folder)


class Sam2Proposer(SamProposer):
    """Run SAM's automatic mask generation with SAM 2.

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
        return _THRESHOLD

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
        encoder = not shares_embedding(context.config)
        self.sam2 = load_sam2(context, "refine", encoder=encoder)
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
        for start in range(0, len(boxes), self.batch_size):
            batch = torch.tensor(boxes[start : start + self.batch_size], dtype=torch.float64)
            low_res, predicted = self.sam2.decode(
                embedding, working_size, boxes=batch, multimask=False
            )
            # One by one: the full-size logits of a batch might not fit into memory.
            for index, logits in enumerate(low_res, start):
                full = self.sam2.upscale(logits, original_size)
                masks[index] = (full[0] > _THRESHOLD).cpu().numpy()
                stability[index] = sam_ops.stability_score(full, _THRESHOLD, self.offset)[0]
            ious[start : start + self.batch_size] = predicted[:, 0]
        return RefinedMasks(masks, ious.numpy(), stability.numpy())
