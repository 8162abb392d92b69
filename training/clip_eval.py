"""Score of the bundled CLIP on phantoms: is a crop nearest to a sentence of the correct class?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional as F  # noqa: N812

from salip_ray.models.bundled.phantoms import KINDS, Phantom, make_phantom
from salip_ray.models.bundled.vocabulary import load_vocabulary
from salip_ray.models.clip.load import ClipModel
from salip_ray.schema import Mask
from training.bank import Split
from training.clip_candidates import NamedMask, judge, structure_masks
from training.clip_data import GROUP, show
from training.sentences import held_out_sentences, train_sentence

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


def _drawn_masks(phantom: Phantom) -> tuple[list[Mask], list[NamedMask]]:
    structures = [NamedMask(s.name, s.mask) for s in phantom.structures]
    rng = np.random.default_rng((_SEED, KINDS.index(phantom.kind), phantom.index))
    grey = phantom.image[..., 0]
    return structure_masks(grey, structures, phantom.kind, 2 * GROUP, rng), structures
