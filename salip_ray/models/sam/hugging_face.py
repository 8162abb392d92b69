"""The names of SAM's tensors in Hugging Face's files, and in the official ones.

``facebook/sam-vit-*``, models that were fine-tuned from them (``wanglab/medsam-vit-base``) and
SAM-HQ hold the tensors of the official checkpoints under other names. Only names differ, so the
fast encoder and decoder of this package run them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

#: Parts of names: Hugging Face's, and the official ones.
_PAIRS = (
    ("vision_encoder.patch_embed.projection.", "image_encoder.patch_embed.proj."),
    ("vision_encoder.neck.conv1.", "image_encoder.neck.0."),
    ("vision_encoder.neck.layer_norm1.", "image_encoder.neck.1."),
    ("vision_encoder.neck.conv2.", "image_encoder.neck.2."),
    ("vision_encoder.neck.layer_norm2.", "image_encoder.neck.3."),
    ("vision_encoder.layers.", "image_encoder.blocks."),
    ("vision_encoder.", "image_encoder."),
    ("prompt_encoder.point_embed.", "prompt_encoder.point_embeddings."),
    ("prompt_encoder.mask_embed.conv1.", "prompt_encoder.mask_downscaling.0."),
    ("prompt_encoder.mask_embed.layer_norm1.", "prompt_encoder.mask_downscaling.1."),
    ("prompt_encoder.mask_embed.conv2.", "prompt_encoder.mask_downscaling.3."),
    ("prompt_encoder.mask_embed.layer_norm2.", "prompt_encoder.mask_downscaling.4."),
    ("prompt_encoder.mask_embed.conv3.", "prompt_encoder.mask_downscaling.6."),
    ("mask_decoder.hq_token.", "mask_decoder.hf_token."),
    ("mask_decoder.compress_vit_conv1.", "mask_decoder.compress_vit_feat.0."),
    ("mask_decoder.compress_vit_norm.", "mask_decoder.compress_vit_feat.1."),
    ("mask_decoder.compress_vit_conv2.", "mask_decoder.compress_vit_feat.3."),
    ("mask_decoder.encoder_conv1.", "mask_decoder.embedding_encoder.0."),
    ("mask_decoder.encoder_norm.", "mask_decoder.embedding_encoder.1."),
    ("mask_decoder.encoder_conv2.", "mask_decoder.embedding_encoder.3."),
    ("mask_decoder.mask_conv1.", "mask_decoder.embedding_maskfeature.0."),
    ("mask_decoder.mask_norm.", "mask_decoder.embedding_maskfeature.1."),
    ("mask_decoder.mask_conv2.", "mask_decoder.embedding_maskfeature.3."),
    ("mask_decoder.upscale_conv1.", "mask_decoder.output_upscaling.0."),
    ("mask_decoder.upscale_layer_norm.", "mask_decoder.output_upscaling.1."),
    ("mask_decoder.upscale_conv2.", "mask_decoder.output_upscaling.3."),
    ("transformer.layer_norm_final_attn.", "transformer.norm_final_attn."),
)
#: One tensor under two names; some files have both, some only one.
_SHARED = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
_NORM = re.compile(r"((?:vision_encoder|mask_decoder\.transformer)\.layers\.\d+)\.layer_norm(\d)\.")
_MLP = re.compile(
    r"(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+|hq_mask_mlp))\."
    r"(proj_in|layers\.\d+|proj_out)\."
)


def is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    """Return True if a state dict has Hugging Face's names."""
    return any(name.startswith("vision_encoder.") for name in state)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of Hugging Face under the official names."""
    return {official_name(name): tensor for name, tensor in state.items()}


def official_name(name: str) -> str:
    """Return the official name of a tensor of Hugging Face."""
    if name in _SHARED:
        return "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    name = _NORM.sub(r"\1.norm\2.", name)
    if match := _MLP.match(name):
        head, layer = match.groups()
        head = head.replace("hq_mask_mlp", "hf_mlp")
        if layer == "proj_in":
            number = 0
        elif layer == "proj_out":
            number = 2  # each of SAM's heads has three layers
        else:
            number = 1 + int(layer.rpartition(".")[2])
        return f"{head}.layers.{number}.{name[match.end() :]}"
    for theirs, official in _PAIRS:
        if theirs in name:
            return name.replace(theirs, official)
    return name


def to_hugging_face(state: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official state dict under Hugging Face's names.

    Args:
        state: with the official names.
        names: a state dict of Hugging Face of the same model, for its names.
    """
    return {name: state[official_name(name)] for name in names}
