"""Load a CLIP: the bundled one, or any that open_clip knows."""

from __future__ import annotations

import importlib.util
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import open_clip
import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from salip_ray.config import ClipConfig, Precision, Resize
from salip_ray.errors import MissingDependencyError, WeightsError
from salip_ray.models.bundled import clip_net
from salip_ray.models.clip.find import (
    activation_error,
    find_weights,
    parse_name,
    uses_quick_gelu,
)
from salip_ray.models.clip.transform import DeviceTransform, accept_thin_images
from salip_ray.models.weight_problems import load_problem
from salip_ray.models.weights import unchanged
from salip_ray.schema import Image

Preprocess: TypeAlias = Callable[[PIL.Image.Image], Tensor]


@dataclass(frozen=True)
class ClipModel:
    """An open_clip model with its own inference transform and tokenizer.

    Attributes:
        model: the model, in eval mode.
        preprocess: makes the model's input tensor from a PIL image.
        tokenizer: makes token ids from a list of sentences.
        device: of the model.
        on_device: replaces ``preprocess`` if it is set.
        dtype: of the image tower; texts are always encoded in float32.
    """

    model: nn.Module
    preprocess: Preprocess
    tokenizer: Callable[[list[str]], Tensor]
    device: torch.device
    on_device: DeviceTransform | None = None
    dtype: torch.dtype = torch.float32

    @property
    def logit_scale(self) -> float:
        """The factor that the model was trained to multiply cosines by before a softmax."""
        return float(self.model.logit_scale.exp())  # type: ignore[operator]

    @torch.no_grad()
    def encode_texts(self, sentences: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Return text features, float32 [n, d], of unit length if ``normalize``."""
        tokens = self.tokenizer(list(sentences)).to(self.device)
        features: Tensor = self.model.encode_text(tokens).float()  # type: ignore[operator]
        return F.normalize(features, dim=-1) if normalize else features

    @torch.no_grad()
    def encode_images(self, images: Sequence[PIL.Image.Image | Image]) -> Tensor:
        """Return unit image features, float32 [n, d], of images in one batch.

        Args:
            images: PIL images, or uint8 RGB arrays [h, w, 3].
        """
        pixels = self._pixels(images).to(self.dtype)
        features: Tensor = self.model.encode_image(pixels).float()  # type: ignore[operator]
        return F.normalize(features, dim=-1)

    def _pixels(self, images: Sequence[PIL.Image.Image | Image]) -> Tensor:
        if self.on_device is not None:
            return self.on_device([np.asarray(image) for image in images], self.device)
        pictures = [
            PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
            for image in images
        ]
        return torch.stack([self.preprocess(picture) for picture in pictures]).to(self.device)


def load_clip(
    config: ClipConfig,
    *,
    device: str | torch.device = "cpu",
    storage_options: Mapping[str, Any] | None = None,
    precision: Precision = "exact",
    resize: Resize = "auto",
) -> ClipModel:
    """Load the configured CLIP in eval mode, without gradients.

    ``clip.model`` is ``bundled``, an open_clip name (``ViT-L-14-quickgelu``), ``hf-hub:org/name``
    or ``local-dir:path``; ``clip.pretrained`` the tag, path or URI that a bare name needs.

    Args:
        config: model, weights and their SHA-256.
        device: where to load it.
        storage_options: fsspec's, for weights that are a URI.
        precision: ``exact`` is float32, ``fast`` an image tower in bfloat16.
        resize: resize images with ``pillow``, bit for bit like open_clip, or on the ``device``;
            ``auto`` is ``device`` on a GPU with the precision ``fast``.

    Raises:
        ConfigError: a model or tag is unknown, weights are not named, or the activation of the
            model is not that of the weights (``-quickgelu``).
        WeightsError: weights are missing, altered, unsafe to load, or of another model.
        MissingDependencyError: the text tower needs ``transformers``.
    """
    target = torch.device(device)
    path = find_weights(config, storage_options)
    if config.model == "bundled":
        with unchanged(path, config.sha256):
            model, preprocess, tokenizer = clip_net.load_bundled_clip(path)
    else:
        with unchanged(path, config.sha256):
            model, preprocess = _create(config, path)
        # open_clip looks up the file of a folder or of the Hub again by itself.
        if config.sha256 is not None and find_weights(config, storage_options) != path:
            raise WeightsError(f"{path} was replaced while it was loaded: run the command again")
        preprocess = accept_thin_images(preprocess)
        tokenizer = open_clip.get_tokenizer(config.model)
    model = model.float().eval().requires_grad_(False).to(target)
    if resize == "auto":
        resize = "device" if precision == "fast" and target.type == "cuda" else "pillow"
    on_device = DeviceTransform.like(preprocess) if resize == "device" else None
    dtype = torch.float32
    if precision == "fast" and isinstance(visual := getattr(model, "visual", None), nn.Module):
        dtype = torch.bfloat16
        visual.to(dtype)
    return ClipModel(model, preprocess, tokenizer, target, on_device, dtype)


def check(config: ClipConfig, *, storage_options: Mapping[str, Any] | None = None) -> Path:
    """Load the configured CLIP to check it; return its local weights file.

    Raises:
        SalipError: as :func:`load_clip`.
    """
    load_clip(config, storage_options=storage_options)
    return find_weights(config, storage_options)


def _create(config: ClipConfig, path: Path) -> tuple[nn.Module, Preprocess]:
    """Create model and inference transform with open_clip."""
    _require_transformers(config)
    script = _is_torchscript(path)
    if script and config.sha256 is None:
        raise WeightsError(
            f"{path} is a TorchScript archive, which runs code when it is loaded: set clip.sha256 "
            "to the digest that its publisher states, or use safetensors"
        )
    if script and not uses_quick_gelu(config.model):
        raise activation_error(config)  # the TorchScript files are OpenAI's
    schema, _ = parse_name(config.model)
    transform = open_clip.get_pretrained_cfg(config.model, config.pretrained or "")
    try:
        with warnings.catch_warnings():
            if script:  # torch warns that it passes the file to torch.jit.load, as intended
                warnings.simplefilter("ignore")
            created: tuple[nn.Module, Preprocess] = open_clip.create_model_from_pretrained(
                config.model,
                pretrained=None if schema else str(path),
                precision="fp32",
                image_mean=transform.get("mean"),
                image_std=transform.get("std"),
                image_interpolation=transform.get("interpolation"),
                image_resize_mode=transform.get("resize_mode"),
                weights_only=not script,
            )
    except Exception as error:  # torch raises many types for malformed files
        raise load_problem(path, error, config.model) from error
    return created


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _require_transformers(config: ClipConfig) -> None:
    text = (open_clip.get_model_config(config.model) or {}).get("text_cfg", {})
    needed = "hf_model_name" in text or "hf_tokenizer_name" in text
    if needed and importlib.util.find_spec("transformers") is None:
        raise MissingDependencyError(
            "transformers", f"the text tower of {config.model}", extra="transformers"
        )
