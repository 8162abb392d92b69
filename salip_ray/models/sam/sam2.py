"""SAM 2 and 2.1 on single images, through ``transformers``: the encoder and decoder of Sam2Model.

The image is squeezed to a square instead of padded, and the embedding has three levels, which
travel as named tensors. The folder ``weights.model`` is one of ``facebook/sam2.1-hiera-*`` (tiny,
small, base-plus, large).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.functional import resize

from salip_ray.models.hugging_face import frozen, load_folder, pretrained
from salip_ray.schema import Image, Size

if TYPE_CHECKING:
    from salip_ray.cascade.interfaces import ModelContext

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEVELS = ("fine", "middle", "coarse")  #: of an embedding: strides 4, 8 and 16
_EXAMPLE = "hf-hub:facebook/sam2.1-hiera-tiny"

Levels = Mapping[str, Tensor]


class Sam2:
    """The operations of SAM 2 on images: encode, decode prompts, upscale.

    Args:
        model: a Sam2Model in eval mode.
        precision: ``fast`` runs the encoder in bfloat16.
    """

    threshold = 0.0  #: the logit above which a pixel belongs to a mask

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
