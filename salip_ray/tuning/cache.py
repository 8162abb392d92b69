"""What the slow half of the cascade makes of a labelled image, kept: a trial then costs little.

SAM's decoded parts and CLIP's features depend on the models, and hardly on what is searched. An
image is encoded once; its parts are decoded once for each grid of points, by the laxest thresholds
of all recipes; and a candidate's picture is shown to CLIP once, however many recipes propose it.
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

from salip_ray.cascade.candidates import Parts, settle
from salip_ray.cascade.geometry import to_working
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.retriever import ClipRetriever, views
from salip_ray.config import Config, ProposeConfig, RetrieveConfig
from salip_ray.models.clip.load import ClipModel
from salip_ray.schema import Candidate, Image, Mask

#: The knobs that ``settle`` applies after decoding; all others change what is decoded.
_SETTLED = (
    *("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "crop_nms_thresh"),
    *("min_mask_region_area", "points_per_batch"),
)
ViewKey = tuple[str, str, int]  #: visual prompt, padding, expand_px
#: CLIP's unit vectors, float32 [d], by the :func:`digest` of a candidate's mask.
Features = Mapping[bytes, npt.NDArray[np.float32]]


def grid_key(knobs: ProposeConfig) -> str:
    """Names what is decoded: the same for recipes that differ in thresholds alone."""
    data = knobs.model_dump(mode="json", exclude=set(_SETTLED))
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def laxest(knobs: Iterable[ProposeConfig]) -> ProposeConfig:
    """Knobs of one grid whose decoded parts hold those of all."""
    knobs = list(knobs)
    lowest = {
        name: min(getattr(each, name) for each in knobs)
        for name in ("pred_iou_thresh", "stability_score_thresh")
    }
    return knobs[0].model_copy(update=lowest)


def view_keys(config: RetrieveConfig) -> list[tuple[ViewKey, RetrieveConfig]]:
    """The pictures of a candidate that a recipe shows to CLIP."""
    return [((v.visual_prompt, v.padding, v.expand_px), v) for v in views(config)]


def digest(mask: Mask) -> bytes:
    """Knows a candidate's pixels again, whichever recipe proposed it."""
    return hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class KeptImage:
    """All that trials need of one image.

    ``references`` are bool [H, W] by class; ``parts`` are those of each view, by grid;
    ``features`` CLIP's unit vectors by view and the digest of a candidate's mask.
    """

    working_size: tuple[int, int]
    original_size: tuple[int, int]
    references: Mapping[str, Mask]
    embedding: Tensor
    parts: Mapping[str, tuple[Parts, ...]]
    features: Mapping[ViewKey, Features]

    def candidates(self, config: Config) -> tuple[list[Candidate], int]:
        """A recipe's candidates within its area limits, and how many there were before."""
        found = settle(self.parts[grid_key(config.propose)], config.propose, self.working_size)
        low, high = config.task.area_limits(*self.working_size)
        return [c for c in found if low < c.area < high], len(found)


def keep_image(
    image: Image,
    references: Mapping[str, Mask],
    recipes: Sequence[Config],
    proposers: Mapping[str, SamProposer],
    clip: ClipModel,
    encode: Callable[[Image], Tensor] | None = None,
) -> KeptImage:
    """Do for one image all that needs a model's encoder, for every recipe.

    Args:
        image: uint8 RGB [H, W, 3].
        references: bool [H, W] of each class.
        recipes: all that may be tried on it.
        proposers: by :func:`grid_key`, of the :func:`laxest` thresholds. Their encoders are used
            once, as long as their views are the same.
        clip: the model.
        encode: of a refiner with weights of its own, the working image's embedding.
    """
    working = to_working(image, recipes[0].image.long_side)
    parts: dict[str, tuple[Parts, ...]] = {}
    embedding: Tensor | None = None
    encoded: dict[tuple[int, int, int, int], Tensor] = {}
    for key, proposer in proposers.items():
        parts[key], embedding = proposer.look(working, encoded)
    assert embedding is not None, "there is at least one recipe"
    kept = KeptImage(
        working_size=(working.shape[0], working.shape[1]),
        original_size=(image.shape[0], image.shape[1]),
        references=references,
        embedding=(embedding if encode is None else encode(working)).float().cpu(),
        parts=parts,
        features={},
    )
    wanted: dict[ViewKey, tuple[RetrieveConfig, dict[bytes, Candidate]]] = {}
    for config in recipes:
        candidates, _ = kept.candidates(config)
        for view, how in view_keys(config.retrieve):
            _, known = wanted.setdefault(view, (how, {}))
            known.update((digest(candidate.mask), candidate) for candidate in candidates)
    features = {
        view: look(clip, how, working, list(known.values()))
        for view, (how, known) in sorted(wanted.items())
    }
    return replace(kept, features=features)


def look(
    clip: ClipModel, how: RetrieveConfig, working: Image, candidates: Sequence[Candidate]
) -> Features:
    """What CLIP sees in one picture of each candidate of a working image."""
    found = _Looking(clip, how).image_features(working, candidates).float().cpu().numpy()
    return dict(zip((digest(c.mask) for c in candidates), found, strict=True))


class _Looking(ClipRetriever):
    """The part of a retriever that needs no text."""

    def __init__(self, clip: ClipModel, config: RetrieveConfig) -> None:
        self.clip, self.config = clip, config
        self.text_features = clip.encode_texts(["nothing"])


def to_bytes(kept: KeptImage) -> bytes:
    """A kept image as one file."""
    arrays: dict[str, npt.NDArray[Any]] = {"embedding": kept.embedding.numpy()}
    for label, mask in kept.references.items():
        arrays[f"reference/{label}"] = np.packbits(mask)
    for key, of_views in kept.parts.items():
        for number, parts in enumerate(of_views):
            for field in fields(Parts):
                arrays[f"parts/{key}/{number}/{field.name}"] = getattr(parts, field.name).numpy()
    for view, known in kept.features.items():
        name = "/".join(map(str, view))
        arrays[f"digests/{name}"] = np.frombuffer(b"".join(known), np.uint8).reshape(-1, 16)
        arrays[f"features/{name}"] = np.array(list(known.values()), np.float32)
    about = {"working_size": kept.working_size, "original_size": kept.original_size}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_bytes(data: bytes) -> KeptImage:
    """A kept image from its file."""
    with np.load(io.BytesIO(data)) as arrays:
        about = json.loads(arrays["about"].tobytes())
        height, width = about["original_size"]
        references: dict[str, Mask] = {}
        columns: dict[str, dict[int, dict[str, Tensor]]] = {}
        features: dict[ViewKey, dict[bytes, npt.NDArray[np.float32]]] = {}
        for name in arrays.files:
            kind, _, rest = name.partition("/")
            if kind == "reference":
                bits = np.unpackbits(arrays[name], count=height * width)
                references[rest] = bits.reshape(height, width).view(np.bool_)
            elif kind == "parts":
                key, number, field = rest.split("/")
                of_view = columns.setdefault(key, {}).setdefault(int(number), {})
                of_view[field] = torch.from_numpy(arrays[name])
            elif kind == "digests":
                prompt, padding, expand = rest.split("/")
                known = (row.tobytes() for row in arrays[name])
                found = dict(zip(known, arrays[f"features/{rest}"], strict=True))
                features[prompt, padding, int(expand)] = found
        return KeptImage(
            working_size=(about["working_size"][0], about["working_size"][1]),
            original_size=(height, width),
            references=references,
            embedding=torch.from_numpy(arrays["embedding"]),
            parts={
                key: tuple(Parts(**of_views[number]) for number in sorted(of_views))
                for key, of_views in columns.items()
            },
            features=features,
        )
