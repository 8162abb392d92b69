"""Scores of the bundled CLIP on phantoms, as the model card gives them.

    python -m training.clip_eval --split tune --phantoms 20

Naming: is a crop nearest to an unseen sentence of the correct class? Choosing: do the shipped
prompts find the organ among an image's candidates, drawn around structures or proposed by the
bundled SAM?
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional as F  # noqa: N812

from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.config import Config, load_config
from salip_ray.models.bundled.clip_net import load_bundled_clip
from salip_ray.models.bundled.phantoms import KINDS, TARGETS, Phantom, make_phantom
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.models.bundled.vocabulary import load_vocabulary
from salip_ray.models.clip.load import ClipModel
from salip_ray.schema import Candidate, Image, Mask
from training.bank import Split
from training.clip_candidates import (
    LEAST_PIXELS,
    NamedMask,
    candidate,
    judge,
    structure_masks,
)
from training.clip_data import GROUP, show
from training.sentences import held_out_sentences, train_sentence

log = logging.getLogger(__name__)

TASKS = {"chest_xray": "lungs", "brain_mri": "brain", "fetal_ultrasound": "fetal_head"}
_SEED = 20_240_614


@dataclass(frozen=True, slots=True)
class Naming:
    """Share of crops that are given the correct class, averaged over classes (mean recall).

    Attributes:
        trained: by sentences of the training wordings.
        held: by single unseen sentences.
        held_mean: by the mean of a class's unseen sentences.
        classes: number of classes that the crops show.
    """

    trained: float
    held: float
    held_mean: float
    classes: int


@dataclass(frozen=True, slots=True)
class Choosing:
    """Mean Dice of the union of the top-k candidates against the organ.

    `oracle` takes the best candidates instead, `blind` the largest.
    """

    chosen: float
    oracle: float
    blind: float


def as_clip_model(path: Path | None = None) -> ClipModel:
    """Return the bundled CLIP, with the shipped weights or another file's, for the cascade."""
    model, preprocess, tokenizer = load_bundled_clip(path)
    return ClipModel(model, preprocess, tokenizer, torch.device("cpu"))


def naming(clip: ClipModel, split: Split, count: int) -> Naming:
    """Name the crops of `count` phantoms of each kind, if their class is clear."""
    crops, labels = [], []
    for kind in KINDS:
        for index in range(count):
            phantom = make_phantom(kind, index, bank=split)
            masks, structures = _drawn_masks(phantom)
            verdicts = judge(masks, structures, kind)
            for picture, verdict in zip(show(phantom.image, masks, "crops"), verdicts, strict=True):
                if verdict.share >= 0.9:
                    crops.append(PILImage.fromarray(picture))
                    labels.append(verdict.label)
    images = torch.cat(
        [clip.encode_images(crops[start : start + 64]) for start in range(0, len(crops), 64)]
    )
    truth = torch.tensor(labels)
    rng = np.random.default_rng(_SEED)
    classes = load_vocabulary().classes
    trained = [[train_sentence(taught, rng) for _ in range(6)] for taught in classes]
    held = [list(held_out_sentences(taught)) for taught in classes]
    trained_texts, held_texts = (
        clip.encode_texts([s for sentences in bank for s in sentences]).unflatten(
            0, (len(classes), -1)
        )
        for bank in (trained, held)
    )
    return Naming(
        trained=_mean_recall(images, trained_texts, truth),
        held=_mean_recall(images, held_texts, truth),
        held_mean=_mean_recall(images, held_texts.mean(dim=1, keepdim=True), truth),
        classes=len(truth.unique()),
    )


def _mean_recall(images: torch.Tensor, texts: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the share of crops named correctly, averaged over classes.

    `texts` is [classes, sentences, d]; one sentence of every class is used at a time.
    """
    scores = torch.einsum("nd,csd->snc", images, F.normalize(texts, dim=-1))
    right = (scores.argmax(dim=2) == truth).float().mean(dim=0)
    return float(torch.stack([right[truth == label].mean() for label in truth.unique()]).mean())


def choosing(
    clip: ClipModel, kind: str, split: Split, count: int, proposer: SamProposer | None
) -> Choosing:
    """Choose among candidates of `proposer`, or drawn around structures if there is none."""
    config = load_config(TASKS[kind])
    retriever = ClipRetriever(clip, config)
    dices = []
    for index in range(count):
        phantom = make_phantom(kind, index, bank=split)
        candidates = _filtered(_candidates(phantom, proposer), config, phantom.image)
        if candidates:
            dices.append(_dices(phantom, candidates, retriever, config))
    chosen, oracle, blind = np.mean(dices, axis=0) if dices else (np.nan,) * 3
    return Choosing(float(chosen), float(oracle), float(blind))


def _dices(
    phantom: Phantom, candidates: Sequence[Candidate], retriever: ClipRetriever, config: Config
) -> tuple[float, float, float]:
    by_id = {c.id: c for c in candidates}
    k = config.task.classes[0].most(len(candidates))
    target = phantom.mask(TARGETS[phantom.kind])
    chosen = [by_id[s.candidate_id].mask for s in retriever(phantom.image, candidates)]
    names = (
        ("left lung", "right lung")
        if config.task.classes[0].top_k == 2
        else (TARGETS[phantom.kind],)
    )
    organs = [organ for name in names if (organ := phantom.mask(name)).any()]
    best = [max((c.mask for c in candidates), key=lambda m: _dice(m, organ)) for organ in organs]
    largest = [c.mask for c in sorted(candidates, key=lambda c: -c.area)[:k]]
    chosen_dice, oracle_dice, blind_dice = (
        _dice(_union(masks), target) for masks in (chosen, best, largest)
    )
    return chosen_dice, oracle_dice, blind_dice


def _candidates(phantom: Phantom, proposer: SamProposer | None) -> Iterator[Candidate]:
    if proposer is not None:
        yield from (c for c in proposer(phantom.image).candidates if c.area >= LEAST_PIXELS)
        return
    for index, mask in enumerate(_drawn_masks(phantom)[0]):
        yield candidate(mask, index)


def _drawn_masks(phantom: Phantom) -> tuple[list[Mask], list[NamedMask]]:
    structures = [NamedMask(s.name, s.mask) for s in phantom.structures]
    rng = np.random.default_rng((_SEED, KINDS.index(phantom.kind), phantom.index))
    grey = phantom.image[..., 0]
    return structure_masks(grey, structures, phantom.kind, 2 * GROUP, rng), structures


def _filtered(candidates: Iterator[Candidate], config: Config, image: Image) -> list[Candidate]:
    low, high = config.area_limits(image.shape[0], image.shape[1])
    return [c for c in candidates if low < c.area < high]


def _union(masks: Sequence[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce(masks))


def _dice(a: Mask, b: Mask) -> float:
    pixels = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / max(1, pixels)


def main() -> None:
    """Log the scores of the shipped models, or of other files of their weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="CLIP's safetensors, if not the shipped ones")
    parser.add_argument("--sam", type=Path, help="SAM's safetensors, if not the shipped ones")
    parser.add_argument("--split", choices=("tune", "test"), default="test")
    parser.add_argument("--phantoms", type=int, default=30, help="per kind")
    parser.add_argument("--drawn-only", action="store_true", help="leave the bundled SAM out")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    clip = as_clip_model(arguments.weights)
    log.info("%s", naming(clip, arguments.split, arguments.phantoms))
    for kind in KINDS:
        drawn = choosing(clip, kind, arguments.split, arguments.phantoms, None)
        log.info("%s, drawn candidates: %s", kind, drawn)
        if not arguments.drawn_only:
            proposer = SamProposer(load_bundled_sam(arguments.sam), load_config(TASKS[kind]))
            proposed = choosing(clip, kind, arguments.split, arguments.phantoms, proposer)
            log.info("%s, proposals of the bundled SAM: %s", kind, proposed)


if __name__ == "__main__":
    main()
