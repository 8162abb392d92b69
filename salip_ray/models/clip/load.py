"""Which CLIP: the bundled one, or any that open_clip knows."""

from __future__ import annotations

import difflib
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
from filelock import FileLock
from open_clip.factory import _find_checkpoint_in_dir, get_model_config, parse_model_name
from open_clip.pretrained import (
    download_pretrained,
    download_pretrained_from_hf,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from salip_ray.config import ClipConfig, Precision, Resize
from salip_ray.errors import ConfigError, MissingDependencyError, SalipError, WeightsError
from salip_ray.models.bundled import clip_net
from salip_ray.models.clip.transform import DeviceTransform, never_vanishing
from salip_ray.models.weights import cache_dir, fetch, verify
from salip_ray.schema import Image

Preprocess: TypeAlias = Callable[[PIL.Image.Image], Tensor]


@dataclass(frozen=True)
class ClipModel:
    """An open_clip model with its own inference transform and tokenizer.

    ``preprocess`` turns a PIL image into the model's input tensor; ``tokenizer`` a list of
    sentences into token ids. Where there is an ``on_device`` transform, images go through it
    instead. ``dtype`` is that of the image tower; texts are always encoded in float32.
    """

    model: nn.Module
    preprocess: Preprocess
    tokenizer: Callable[[list[str]], Tensor]
    device: torch.device
    on_device: DeviceTransform | None = None
    dtype: torch.dtype = torch.float32

    @property
    def logit_scale(self) -> float:
        """What the model was trained to multiply cosines by before a softmax."""
        return float(self.model.logit_scale.exp())  # type: ignore[operator]

    @torch.no_grad()
    def encode_texts(self, sentences: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Text features, float32 [n, d]; of unit length each, or as the text tower gives them."""
        tokens = self.tokenizer(list(sentences)).to(self.device)
        features: Tensor = self.model.encode_text(tokens).float()  # type: ignore[operator]
        return F.normalize(features, dim=-1) if normalize else features

    @torch.no_grad()
    def encode_images(self, images: Sequence[PIL.Image.Image | Image]) -> Tensor:
        """Unit image features, float32 [n, d], of PIL images or uint8 RGB arrays [h, w, 3].

        All in one batch.
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
    """The configured CLIP in eval mode, without gradients.

    ``clip.model`` is ``bundled``, an open_clip name (``ViT-L-14-quickgelu``), ``hf-hub:org/name``
    or ``local-dir:path``; ``clip.pretrained`` the tag, path or URI that a bare name needs.

    Args:
        config: model, weights and what they must hash to.
        device: where to put it.
        storage_options: fsspec's, for weights that are a URI.
        precision: ``exact`` is float32, ``fast`` an image tower in bfloat16.
        resize: images by ``pillow``, to the last bit as open_clip does, or on the ``device``;
            ``auto`` is ``device`` where that is a GPU and the precision ``fast``.

    Raises:
        ConfigError: a model or tag is unknown, weights are not named, or the name's activation is
            not the weights' (``-quickgelu``).
        WeightsError: weights are missing, altered, unsafe to load, or of another model.
        MissingDependencyError: the text tower needs ``transformers``.
    """
    place = torch.device(device)
    path = _checkpoint(config, storage_options)
    if config.model == "bundled":
        model, preprocess, tokenizer = clip_net.load_bundled_clip(path)
    else:
        model, preprocess = _create(config, path)
        preprocess = never_vanishing(preprocess)
        tokenizer = open_clip.get_tokenizer(config.model)
    model = model.float().eval().requires_grad_(False).to(place)
    if resize == "auto":
        resize = "device" if precision == "fast" and place.type == "cuda" else "pillow"
    on_device = DeviceTransform.like(preprocess) if resize == "device" else None
    dtype = torch.float32
    if precision == "fast" and isinstance(visual := getattr(model, "visual", None), nn.Module):
        dtype = torch.bfloat16
        visual.to(dtype)
    return ClipModel(model, preprocess, tokenizer, place, on_device, dtype)


def check(config: ClipConfig, *, storage_options: Mapping[str, Any] | None = None) -> Path:
    """The local weights file of the configured CLIP, once it is known to load.

    Raises:
        SalipError: as :func:`load_clip`.
    """
    load_clip(config, storage_options=storage_options)
    return _checkpoint(config, storage_options)


def _checkpoint(config: ClipConfig, storage_options: Mapping[str, Any] | None) -> Path:
    """The local weights file, verified against ``config.sha256``."""
    if config.model == "bundled":
        _refuse_pretrained(config)
        path = clip_net.WEIGHTS
    else:
        try:
            path = _find(config, storage_options)
        except SalipError:
            raise
        except Exception as error:  # open_clip and the hub raise whatever they meet
            reason = " ".join(str(error).split())
            raise WeightsError(f"weights of {_name(config)} cannot be found: {reason}") from error
    verify(path, config.sha256, f"weights of {_name(config)}")
    return path


def _find(config: ClipConfig, storage_options: Mapping[str, Any] | None) -> Path:
    schema, identifier = parse_model_name(config.model)
    if schema == "hf-hub":
        _refuse_pretrained(config)
        return Path(download_pretrained_from_hf(identifier))
    if schema == "local-dir":
        _refuse_pretrained(config)
        return _in_folder(Path(identifier))
    if get_model_config(config.model) is None:
        known = open_clip.list_models()
        near = difflib.get_close_matches(config.model, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see open_clip.list_models()"
        raise ConfigError(f"clip.model {config.model!r} is not known to open_clip; {hint}")
    if config.pretrained is None:
        raise ConfigError(
            f"clip.pretrained is missing: {config.model} needs a tag "
            f"({_tags(config.model)}), or the path or URI of a checkpoint"
        )
    tag = get_pretrained_cfg(config.model, config.pretrained)
    if not tag:
        if "/" not in config.pretrained and not Path(config.pretrained).is_file():
            raise ConfigError(
                f"clip.pretrained {config.pretrained!r} is neither a file nor a tag of "
                f"{config.model} ({_tags(config.model)})"
            )
        return fetch(config.pretrained, sha256=config.sha256, storage_options=storage_options)
    if tag.get("quick_gelu", False) != _quick_gelu(config.model):
        raise _activation_error(config)
    # open_clip writes its downloads in place: one process at a time.
    lock = cache_dir() / f"open_clip-{config.model}-{config.pretrained}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        return Path(download_pretrained(tag))


def _create(config: ClipConfig, path: Path) -> tuple[nn.Module, Preprocess]:
    """Model and inference transform, by open_clip."""
    _require_transformers(config)
    script = _is_torchscript(path)
    if script and config.sha256 is None:
        raise WeightsError(
            f"{path} is a TorchScript archive, which runs code when it is loaded: set clip.sha256 "
            "to the digest its publisher states, or use safetensors"
        )
    if script and not _quick_gelu(config.model):
        raise _activation_error(config)  # the TorchScript files are OpenAI's
    schema, _ = parse_model_name(config.model)
    transform = get_pretrained_cfg(config.model, config.pretrained or "")
    try:
        with warnings.catch_warnings():
            if script:  # torch says that it hands the file to torch.jit.load, as it should
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
    except Exception as error:  # whatever a foreign file makes torch raise
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path} cannot be loaded as {config.model}: {reason}") from error
    return created


def _in_folder(folder: Path) -> Path:
    if not (folder / "open_clip_config.json").is_file():
        raise WeightsError(
            f"clip.model local-dir:{folder}: the folder has no open_clip_config.json"
        )
    found = _find_checkpoint_in_dir(folder)  # the very choice create_model makes
    if found is None:
        raise WeightsError(f"clip.model local-dir:{folder}: the folder holds no weights file")
    return Path(found)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _quick_gelu(model: str) -> bool:
    return bool(get_model_config(model).get("quick_gelu", False))


def _activation_error(config: ClipConfig) -> ConfigError:
    """open_clip only warns of this, and then labels with a model that was never trained."""
    return ConfigError(
        f"clip.model {config.model} uses another activation than the weights "
        f"{config.pretrained!r} were trained with: use {config.model}-quickgelu"
    )


def _require_transformers(config: ClipConfig) -> None:
    text = (get_model_config(config.model) or {}).get("text_cfg", {})
    needed = "hf_model_name" in text or "hf_tokenizer_name" in text
    if needed and importlib.util.find_spec("transformers") is None:
        raise MissingDependencyError(
            "transformers", f"the text tower of {config.model}", extra="transformers"
        )


def _refuse_pretrained(config: ClipConfig) -> None:
    if config.pretrained is not None:
        raise ConfigError(
            f"clip.pretrained {config.pretrained!r} would be ignored: {config.model} brings its "
            "own weights; leave it out"
        )


def _tags(model: str) -> str:
    return ", ".join(list_pretrained_tags_by_model(model)) or "it has no tags"


def _name(config: ClipConfig) -> str:
    return f"{config.model} {config.pretrained or ''}".rstrip()
