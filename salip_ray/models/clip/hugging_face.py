"""CLIP and SigLIP of Hugging Face, through ``transformers``.

The folder ``weights.model`` holds the configuration, weights (safetensors) and processor of a
CLIPModel, SiglipModel or another model with the same two encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from salip_ray.models.hugging_face import frozen, load_folder, pretrained
from salip_ray.schema import Image

if TYPE_CHECKING:
    from salip_ray.cascade.interfaces import ModelContext
    from salip_ray.models.clip.load import ClipModel

_EXAMPLE = "hf-hub:openai/clip-vit-base-patch32"


class HuggingFaceClip:
    """A model with an image and a text encoder, as :class:`~salip_ray.models.clip.load.ClipModel`.

    Args:
        model: in eval mode, on the device to use.
        processor: its image processor and tokenizer.
        dtype: of the image encoder; texts are always encoded in float32.
    """

    def __init__(self, model: Any, processor: Any, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.processor, self.dtype = model, processor, dtype
        self.device = model.device
        # SigLIP was trained on texts of a fixed length; CLIP does not see the padding.
        is_siglip = "siglip" in str(model.config.model_type)
        self.padding = "max_length" if is_siglip else True

    @property
    def logit_scale(self) -> float:
        """The factor that the model was trained to multiply cosines by before a softmax."""
        return float(self.model.logit_scale.exp())

    @torch.no_grad()
    def encode_texts(self, sentences: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Return text features, float32 [n, d], of unit length if ``normalize``."""
        tokens = self.processor.tokenizer(
            list(sentences), padding=self.padding, truncation=True, return_tensors="pt"
        ).to(self.device)
        features = _pooled(self.model.get_text_features(**tokens))
        return F.normalize(features, dim=-1) if normalize else features

    @torch.no_grad()
    def encode_images(self, images: Sequence[PIL.Image.Image | Image]) -> Tensor:
        """Return unit image features, float32 [n, d], of images in one batch.

        Args:
            images: PIL images, or uint8 RGB arrays [h, w, 3].
        """
        pictures = [
            PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
            for image in images
        ]
        pixels = self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        features = self.model.get_image_features(pixels.to(self.device, self.dtype))
        return F.normalize(_pooled(features), dim=-1)


def _pooled(output: Any) -> Tensor:
    features: Tensor = output.pooler_output
    return features.float()


def load_hugging_face_clip(context: ModelContext) -> ClipModel:
    """Load the folder ``weights.model``.

    Raises:
        ConfigError: no folder is named.
        WeightsError: the folder holds no such model.
        MissingDependencyError: ``transformers`` is not installed.
    """
    model, processor = load_folder(
        context, "retrieve.model hf-clip", "CLIP or SigLIP of Hugging Face", _EXAMPLE, _load
    )
    model = frozen(model, context)
    dtype = torch.float32
    if context.precision == "fast":
        dtype = torch.bfloat16
        model.vision_model.to(dtype)
        if hasattr(model, "visual_projection"):
            model.visual_projection.to(dtype)
    return cast("ClipModel", HuggingFaceClip(model, processor, dtype))  # it has the same methods


def _load(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoProcessor

    model = pretrained(AutoModel, folder)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    _ = model.vision_model, model.logit_scale, processor.tokenizer, processor.image_processor
    return model, processor
