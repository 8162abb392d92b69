"""Results of the slow half of the cascade, cached on disk, so that a variant takes seconds.

Proposals, embedding and CLIP's features of every candidate depend on the models and on ``propose``
alone. They are computed once per image and recipe of those, and read again for each variant of what
follows: ranking, refinement, abstention.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from salip_ray.cascade.geometry import make_working
from salip_ray.cascade.proposer import SamProposer
from salip_ray.config import Config
from salip_ray.models.clip.load import ClipModel
from salip_ray.models.identity import identify
from salip_ray.schema import Candidate, Image, Mask
from salip_ray.tuning.cache import Features, PromptKey, features_by_mask, mask_digest


@dataclass(frozen=True)
class Item:
    """An image to label: ``load`` gives it (uint8 RGB [H, W, 3]) with the organ's mask [H, W]."""

    name: str
    load: Callable[[], tuple[Image, Mask]]


@dataclass(frozen=True)
class CachedImage:
    """One image with its cached results.

    ``candidates`` are all that SAM proposed, before any area filter, in the order of their ids.
    ``features`` are CLIP's, by view. ``seconds`` of CPU are what proposing took, and
    looking, by view.
    """

    name: str
    working_size: tuple[int, int]
    reference: Mask
    candidates: tuple[Candidate, ...]
    embedding: Tensor
    features: dict[PromptKey, Features]
    seconds: dict[str, float]


def cached_images(
    folder: Path,
    config: Config,
    items: Iterable[Item],
    views: Iterable[PromptKey],
    proposer: SamProposer,
    clip: ClipModel,
) -> Iterator[CachedImage]:
    """Yield the cached results of every item, read from ``folder`` or computed into it.

    Args:
        folder: below it, one folder for each recipe of proposals and models.
        config: ``image``, ``sam``, ``clip`` and ``propose`` decide what is made; its task's area
            limits must let everything pass.
        items: images; their names are file names.
        views: the pictures of candidates whose features are needed.
        proposer: made from ``config``.
        clip: the configured CLIP.
    """
    made_by = {
        "propose": config.propose.model_dump(),
        "long_side": config.image.long_side,
        "expand_px": config.retrieve.expand_px,
        "weights": identify(config),
    }
    key = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:12]
    home = folder / key
    home.mkdir(parents=True, exist_ok=True)
    for item in items:
        path = home / f"{item.name}.npz"
        if not path.exists():
            _propose(path, config, item, proposer)
        cached = _read(path, item.name)
        for view in sorted(views):
            name = "-".join(view[:2])  # expand_px is the folder's
            looked = home / f"{item.name}.{name}.npz"
            if not looked.exists():
                _look(looked, config, item, view, cached.candidates, clip)
            with np.load(looked) as data:
                digests = (mask_digest(candidate.mask) for candidate in cached.candidates)
                cached.features[view] = dict(zip(digests, data["features"], strict=True))
                cached.seconds[name] = float(data["seconds"])
        yield cached


def _propose(path: Path, config: Config, item: Item, proposer: SamProposer) -> None:
    image, reference = item.load()
    working = make_working(image, config.image)
    start = time.process_time()
    proposals = proposer(working)
    seconds = time.process_time() - start
    candidates = proposals.candidates
    _save(
        path,
        working_size=np.array(working.shape[:2]),
        reference_size=np.array(reference.shape),
        reference=np.packbits(reference),
        masks=np.array([np.packbits(c.mask) for c in candidates], np.uint8),
        numbers=np.array(
            [
                (c.id, c.area, *c.box, c.predicted_iou, c.stability_score, *c.point, *c.crop_box)
                for c in candidates
            ],
            np.float64,
        ),
        embedding=proposals.embedding.cpu().numpy(),
        seconds=np.array(seconds),
    )


def _look(
    path: Path,
    config: Config,
    item: Item,
    view: PromptKey,
    candidates: Sequence[Candidate],
    clip: ClipModel,
) -> None:
    working = make_working(item.load()[0], config.image)
    shown = {"visual_prompt": view[0], "padding": view[1], "ensemble": ()}
    how = config.retrieve.model_copy(update=shown)
    start = time.process_time()
    digests = features_by_mask(clip, how, working, candidates)
    features = np.array(
        [digests[mask_digest(candidate.mask)] for candidate in candidates], np.float32
    )
    _save(path, features=features, seconds=np.array(time.process_time() - start))


def _save(path: Path, **arrays: np.ndarray) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)


def _read(path: Path, name: str) -> CachedImage:
    with np.load(path) as data:
        height, width = (int(side) for side in data["working_size"])
        reference_size = tuple(int(side) for side in data["reference_size"])
        candidates = tuple(
            Candidate(
                id=int(row[0]),
                mask=_unpacked(bits, (height, width)),
                area=int(row[1]),
                box=tuple(row[2:6].tolist()),
                predicted_iou=float(row[6]),
                stability_score=float(row[7]),
                point=tuple(row[8:10].tolist()),
                crop_box=tuple(row[10:14].tolist()),
            )
            for row, bits in zip(data["numbers"], data["masks"], strict=True)
        )
        return CachedImage(
            name=name,
            working_size=(height, width),
            reference=_unpacked(data["reference"], reference_size),
            candidates=candidates,
            embedding=torch.from_numpy(data["embedding"]),
            features={},
            seconds={"propose": float(data["seconds"])},
        )


def _unpacked(bits: np.ndarray, size: tuple[int, int]) -> Mask:
    return np.unpackbits(bits, count=size[0] * size[1]).reshape(size).view(np.bool_)
