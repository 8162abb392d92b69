"""Load a SAM: the bundled one, an official checkpoint, or one of Hugging Face."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, Sam
from torch import Tensor, nn

from salip_ray.config import Precision, SamConfig
from salip_ray.errors import WeightsError
from salip_ray.models.bundled import sam_net
from salip_ray.models.sam import hugging_face
from salip_ray.models.sam.decoder import QuickMaskDecoder
from salip_ray.models.sam.encoder import quicken_blocks
from salip_ray.models.sam.mobile_sam import build_mobile_sam, to_timm
from salip_ray.models.sam.sam_med2d import build_sam_med2d, state_of
from salip_ray.models.weight_problems import load_problem
from salip_ray.models.weights import fetch, fetch_folder, is_folder, unchanged, verify

_SAFETENSORS = "model.safetensors"  # Hugging Face's name


def load_sam(
    config: SamConfig,
    *,
    device: str | torch.device = "cpu",
    storage_options: Mapping[str, Any] | None = None,
    decoder_only: bool = False,
    precision: Precision = "exact",
) -> Sam:
    """Load the configured SAM in eval mode, without gradients, accelerated by :func:`quicken`.

    Args:
        config: model, checkpoint and its SHA-256.
        device: where to load it.
        storage_options: fsspec's, for a checkpoint that is a URI.
        decoder_only: leave out the image encoder (ViT-H: 632 of its 636 M parameters), for prompts
            on existing embeddings.
        precision: ``exact`` or ``fast``.

    Raises:
        WeightsError: the checkpoint is missing, altered, unsafe to load, or of another model.
    """
    path = checkpoint(config, storage_options)
    with unchanged(path, config.sha256):
        if config.model == "bundled":
            sam = sam_net.load_bundled_sam(path)
        else:
            state = read_state(path, config.model)
            sam = _build(config.model)
            require_fit(sam, state, config.model, path)
            sam.load_state_dict(state)  # copies; nothing stays mapped from the file
    if decoder_only:
        sam.image_encoder = _NoImageEncoder(sam.image_encoder.img_size)
    sam = sam.eval().requires_grad_(False).to(device)
    quicken(sam, precision)
    return sam


def quicken(sam: Sam, precision: Precision = "exact") -> None:
    """Replace the encoder blocks and the mask decoder of a SAM by those of this package, in place.

    With ``exact``, results equal the official ones up to rounding. With ``fast``, encoder and
    decoder run in bfloat16, and the encoder is compiled on a GPU. Prompts stay in float32: in
    bfloat16 a point is off by up to two pixels. Names in the state dict do not change. Modules that
    are not from ``segment_anything`` are not replaced.
    """
    quicken_blocks(sam.image_encoder)
    if type(sam.mask_decoder) is MaskDecoder:
        sam.mask_decoder = QuickMaskDecoder(sam.mask_decoder)
    if precision == "exact":
        return
    sam.image_encoder.to(torch.bfloat16)
    sam.image_encoder.register_forward_pre_hook(_in_bfloat16)
    if isinstance(sam.mask_decoder, QuickMaskDecoder):
        sam.mask_decoder.to(torch.bfloat16)
    if sam.device.type == "cuda" and not isinstance(sam.image_encoder, _NoImageEncoder):
        sam.image_encoder.compile(dynamic=False)


def _in_bfloat16(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].to(torch.bfloat16),)


def check(config: SamConfig, *, storage_options: Mapping[str, Any] | None = None) -> Path:
    """Check that the configured weights fit their model; return the local file.

    Official checkpoints are compared by names and shapes, without loading them into memory.

    Raises:
        WeightsError: as :func:`load_sam`.
    """
    path = checkpoint(config, storage_options)
    if config.model == "bundled":
        sam_net.load_bundled_sam(path)
    else:
        with torch.device("meta"):
            sam = _build(config.model)
        require_fit(sam, read_state(path, config.model), config.model, path)
    return path


def _build(model: str) -> Sam:
    """Return a SAM without trained weights."""
    builders = {"vit_t": build_mobile_sam, "sam_med2d": build_sam_med2d, **sam_model_registry}
    return builders[model]()


def checkpoint(config: SamConfig, storage_options: Mapping[str, Any] | None) -> Path:
    """Return the local file of a SAM's weights, fetched if needed, and verified.

    Raises:
        WeightsError: it is missing, altered or cannot be fetched.
    """
    if config.model == "bundled":
        verify(sam_net.WEIGHTS, config.sha256, "the bundled SAM")
        return sam_net.WEIGHTS
    assert config.checkpoint is not None  # SamConfig requires it
    if is_folder(config.checkpoint):
        path = fetch_folder(config.checkpoint) / _SAFETENSORS
        if not path.is_file():
            raise WeightsError(
                f"the folder {config.checkpoint} has no {_SAFETENSORS}: name one of SAM's "
                "checkpoints of Hugging Face, such as hf-hub:facebook/sam-vit-base"
            )
        verify(path, config.sha256, config.checkpoint)
        return path
    return fetch(config.checkpoint, sha256=config.sha256, storage_options=storage_options)


def read_state(path: Path, model: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, mapped from the file."""
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            with path.open("rb") as file:
                # Files of torch before 1.6 are not zip archives and cannot be mapped.
                mappable = file.read(2) == b"PK"
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise load_problem(path, error, model) from error
    if model == "sam_med2d":
        state = state_of(state)
    plain = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
    if not plain:
        raise WeightsError(
            f"{path} is not a plain state dict of tensors, which SAM's official files are. If it "
            "is a training checkpoint, save the state dict in it as a separate file"
        )
    if model == "vit_t":
        return to_timm(state)
    return hugging_face.to_official(state) if hugging_face.is_hugging_face(state) else state


def require_fit(sam: Sam, state: Mapping[str, Tensor], model: str, path: Path) -> None:
    """Raise WeightsError unless names and shapes are those of the model."""
    wanted = {name: tuple(tensor.shape) for name, tensor in sam.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wanted == stored:
        return
    misfits = sorted(wanted.items() ^ stored.items())
    name = misfits[0][0]
    raise WeightsError(
        f"{path} is not a checkpoint of {model}: {name} is {stored.get(name, 'absent')} in the "
        f"file, {wanted.get(name, 'absent')} in the model ({len({m for m, _ in misfits})} tensors "
        "differ)"
    )


class _NoImageEncoder(nn.Module):
    """Stand-in for an image encoder that is not needed; has the size that scales prompts."""

    def __init__(self, img_size: int) -> None:
        super().__init__()
        self.img_size = img_size

    def forward(self, _: Tensor) -> NoReturn:
        raise RuntimeError("this SAM was loaded with decoder_only: it cannot encode images")
