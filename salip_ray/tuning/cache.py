"""Cache what the encoders compute for a labelled image, so that a trial is fast.

SAM's decoded masks and CLIP's features depend on the models, and on few of the settings that a
search varies. Each image is encoded once. Its masks are decoded once for each grid of points, with
the loosest thresholds of all recipes. Each visual prompt of a candidate is encoded once, however
many recipes propose that candidate.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salip_ray.cascade.candidates import DecodedMasks, make_candidates, within_limits
from salip_ray.cascade.geometry import make_working
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.retriever import mean_features, prompt_features, single_prompts
from salip_ray.config import Config, ProposeConfig, RetrieveConfig
from salip_ray.models.clip.load import ClipModel
from salip_ray.schema import Candidate, Image, Mask

#: Settings that ``make_candidates`` applies after decoding; all others change what is decoded.
_APPLIED_AFTER_DECODING = (
    *("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "crop_nms_thresh"),
    *("min_mask_region_area", "points_per_batch"),
)
PromptKey = tuple[str, str, str]  #: visual prompt, padding, other settings of the drawing
#: CLIP's unit vectors, float32 [d], by the :func:`mask_digest` of a candidate.
Features = Mapping[bytes, npt.NDArray[np.float32]]


def grid_key(settings: ProposeConfig) -> str:
    """Return a key of what is decoded; recipes that differ only in thresholds share it."""
    data = settings.model_dump(mode="json", exclude=set(_APPLIED_AFTER_DECODING))
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def loosest_settings(settings: Iterable[ProposeConfig]) -> ProposeConfig:
    """Return settings of one grid that decode every mask that any of ``settings`` needs."""
    settings = list(settings)
    lowest = {
        name: min(getattr(each, name) for each in settings)
        for name in ("pred_iou_thresh", "stability_score_thresh")
    }
    return settings[0].model_copy(update=lowest)


def prompt_keys(config: RetrieveConfig) -> list[tuple[PromptKey, RetrieveConfig]]:
    """Return a key and the settings of each visual prompt that a recipe shows to CLIP."""
    drawing = (config.expand_px, config.box_end, config.box_line, config.contour_line)
    others = "-".join(map(str, (*drawing, config.contours, config.outside)))
    return [((c.visual_prompt, c.padding, others), c) for c in single_prompts(config)]


def mask_digest(mask: Mask) -> bytes:
    """Return a digest that identifies a candidate's mask, whichever recipe proposed it."""
    return hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class CachedImage:
    """All that trials need of one image.

    Attributes:
        working_size: height, width.
        original_size: height, width.
        references: bool [H, W] by class.
        embedding: of the working image by the refiner's weights, float32 [1, C, h, w].
        decoded: masks of each view, by :func:`grid_key`.
        features: CLIP's unit vectors, by visual prompt and mask.
    """

    working_size: tuple[int, int]
    original_size: tuple[int, int]
    references: Mapping[str, Mask]
    embedding: Tensor
    decoded: Mapping[str, tuple[DecodedMasks, ...]]
    features: Mapping[PromptKey, Features]

    def candidates(self, config: Config) -> tuple[tuple[Candidate, ...], int]:
        """Return a recipe's candidates within its area limits, and their number before these."""
        views = self.decoded[grid_key(config.propose)]
        candidates = make_candidates(views, config.propose, self.working_size)
        return within_limits(candidates, config, self.working_size), len(candidates)

    def image_features(self, config: RetrieveConfig, candidates: Sequence[Candidate]) -> Tensor:
        """Return unit image features of candidates, float32 [n, d], n > 0, on the CPU."""
        digests = [mask_digest(candidate.mask) for candidate in candidates]
        return mean_features(
            [
                torch.from_numpy(np.stack([self.features[key][digest] for digest in digests]))
                for key, _ in prompt_keys(config)
            ]
        )


def cache_image(
    image: Image,
    references: Mapping[str, Mask],
    recipes: Sequence[Config],
    proposers: Mapping[str, SamProposer],
    clip: ClipModel,
    encode: Callable[[Image], Tensor] | None = None,
) -> CachedImage:
    """Run the encoders on one image, for every recipe.

    Args:
        image: uint8 RGB [H, W, 3].
        references: bool [H, W] of each class.
        recipes: all recipes that may be tried on the image.
        proposers: one for each :func:`grid_key`, with the :func:`loosest_settings` of its recipes.
            They share one SAM, so that each view is encoded once.
        clip: the model.
        encode: returns the working image's embedding, for a refiner with its own weights.
    """
    working = make_working(image, recipes[0].image)
    decoded: dict[str, tuple[DecodedMasks, ...]] = {}
    embedding: Tensor | None = None
    encoded: dict[tuple[int, int, int, int], Tensor] = {}
    for key, proposer in proposers.items():
        decoded[key], embedding = proposer.decode_views(working, encoded)
    assert embedding is not None, "there is at least one recipe"
    cached = CachedImage(
        working_size=(working.shape[0], working.shape[1]),
        original_size=(image.shape[0], image.shape[1]),
        references=references,
        embedding=(embedding if encode is None else encode(working)).float().cpu(),
        decoded=decoded,
        features={},
    )
    needed: dict[PromptKey, tuple[RetrieveConfig, dict[bytes, Candidate]]] = {}
    for config in recipes:
        candidates, _ = cached.candidates(config)
        for prompt, settings in prompt_keys(config.retrieve):
            _, by_digest = needed.setdefault(prompt, (settings, {}))
            by_digest.update((mask_digest(candidate.mask), candidate) for candidate in candidates)
    features = {
        prompt: features_by_mask(clip, settings, working, list(by_digest.values()))
        for prompt, (settings, by_digest) in sorted(needed.items())
    }
    return replace(cached, features=features)


def features_by_mask(
    clip: ClipModel, config: RetrieveConfig, working: Image, candidates: Sequence[Candidate]
) -> Features:
    """Return CLIP's features of one visual prompt of each candidate of a working image."""
    features = prompt_features(clip, working, candidates, config).float().cpu().numpy()
    return dict(zip((mask_digest(c.mask) for c in candidates), features, strict=True))


def to_bytes(cached: CachedImage) -> bytes:
    """Return a cached image as the content of one file."""
    arrays: dict[str, npt.NDArray[Any]] = {"embedding": cached.embedding.numpy()}
    for label, mask in cached.references.items():
        arrays[f"reference/{label}"] = np.packbits(mask)
    for key, views in cached.decoded.items():
        for number, masks in enumerate(views):
            for field in fields(DecodedMasks):
                arrays[f"parts/{key}/{number}/{field.name}"] = getattr(masks, field.name).numpy()
    for prompt, by_digest in cached.features.items():
        name = "/".join(map(str, prompt))
        arrays[f"digests/{name}"] = np.frombuffer(b"".join(by_digest), np.uint8).reshape(-1, 16)
        arrays[f"features/{name}"] = np.array(list(by_digest.values()), np.float32)
    about = {"working_size": cached.working_size, "original_size": cached.original_size}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_bytes(data: bytes) -> CachedImage:
    """Return the cached image of a file made by :func:`to_bytes`."""
    with np.load(io.BytesIO(data)) as arrays:
        about = json.loads(arrays["about"].tobytes())
        height, width = about["original_size"]
        references: dict[str, Mask] = {}
        columns: dict[str, dict[int, dict[str, Tensor]]] = {}
        features: dict[PromptKey, dict[bytes, npt.NDArray[np.float32]]] = {}
        for name in arrays.files:
            kind, _, rest = name.partition("/")
            if kind == "reference":
                bits = np.unpackbits(arrays[name], count=height * width)
                references[rest] = bits.reshape(height, width).view(np.bool_)
            elif kind == "parts":
                key, number, field = rest.split("/")
                view = columns.setdefault(key, {}).setdefault(int(number), {})
                view[field] = torch.from_numpy(arrays[name])
            elif kind == "digests":
                prompt, padding, others = rest.split("/")
                digests = (row.tobytes() for row in arrays[name])
                by_digest = dict(zip(digests, arrays[f"features/{rest}"], strict=True))
                features[prompt, padding, others] = by_digest
        return CachedImage(
            working_size=(about["working_size"][0], about["working_size"][1]),
            original_size=(height, width),
            references=references,
            embedding=torch.from_numpy(arrays["embedding"]),
            decoded={
                key: tuple(DecodedMasks(**views[number]) for number in sorted(views))
                for key, views in columns.items()
            },
            features=features,
        )
