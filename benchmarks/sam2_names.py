"""The weights of the official SAM 2 under the names that ``transformers`` gives them.

Only comparisons need it: the published repositories have files of both kinds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

#: Patterns of official names, and what they are called in Sam2Model; applied in this order.
_RENAMES = (
    (r"^sam_", ""),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"(_mlps\.\d|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d|_head)\.layers\.2\.", r"\1.proj_out."),
)
_OF_VIDEO = re.compile(r"^(mask_downsample|mem|maskmem|no_mem_pos|no_obj|obj_ptr)")
_POINTS = "prompt_encoder.point_embeddings."


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights for images of an official SAM 2 as a state of ``Sam2Model``."""
    named: dict[str, Tensor] = {}
    points: dict[str, Tensor] = {}
    for official, tensor in state.items():
        if _OF_VIDEO.match(official):
            continue
        name = official
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name, count=1)
        (points if name.startswith(_POINTS) else named)[name] = tensor
    named["prompt_encoder.point_embed.weight"] = torch.cat([points[key] for key in sorted(points)])
    shared = named["prompt_encoder.shared_embedding.positional_embedding"]
    return named | {"shared_image_embedding.positional_embedding": shared}
