"""A run from given weights draws the phantoms more often that they are bad at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from salip_ray.models.bundled.clip_net import (
    EMBED_DIM,
    bundled_preprocess,
    load_bundled_clip,
)
from salip_ray.models.bundled.phantoms import KINDS
from salip_ray.models.bundled.sam_net import load_bundled_sam
from training.bank import Bank, open_bank
from training.clip_data import CropBank, open_crop_bank
from training.clip_train import CropBatches, Sentences
from training.hard import hard_groups, hard_phantoms
from training.sam_data import SamBatches


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return open_bank(tmp_path_factory.mktemp("banks"), "brain_mri", "train", 4, workers=1)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> CropBank:
    return open_crop_bank(tmp_path_factory.mktemp("crops"), "train", 6)


def test_a_phantom_that_sam_cannot_see_is_drawn_most(bank: Bank) -> None:
    sam = load_bundled_sam()
    usual = hard_phantoms(sam, bank)
    assert usual.sum() == pytest.approx(1.0)
    images = bank.images.copy()
    images[2] = 0  # its labels still tell of a brain
    blind = hard_phantoms(sam, replace(bank, images=images))
    assert blind.argmax() == 2
    assert blind[2] > 2 * usual[2]


def test_a_phantom_without_the_organ_is_easy(bank: Bank) -> None:
    labels = bank.labels.copy()
    labels[1] = 0
    chances = hard_phantoms(load_bundled_sam(), replace(bank, labels=labels))
    assert chances.argmin() == 1
    assert chances[1] > 0


def test_a_group_whose_best_candidate_is_not_chosen_is_drawn_most(crops: CropBank) -> None:
    clip = load_bundled_clip()[0]
    normalise = bundled_preprocess().transforms[-1]  # type: ignore[attr-defined]
    pixels = torch.from_numpy(np.array(crops.crops[:3, 2])).permute(0, 3, 1, 2) / 255
    # Groups 0 to 2 are of the three kinds; a text that is the picture of candidate 2 chooses it.
    texts = F.normalize(clip.encode_image(normalise(pixels)), dim=-1)
    assert list(crops.kinds[:3]) == list(range(len(KINDS)))
    grades = np.zeros_like(crops.grades[:3])
    grades[:, 2] = 1.0
    grades[1, 0], grades[1, 2] = 1.0, 0.25
    first = {name: getattr(crops, name)[:3] for name in ("crops", "labels", "shares", "kinds")}
    assert (first["labels"][:, 2, 0] >= 0).all()
    chances = hard_groups(clip, CropBank(**first, grades=grades), texts)
    assert chances[0] == pytest.approx(chances[2])
    assert chances[1] == pytest.approx(chances[0] * (0.75 + 0.03) / 0.03)
    assert not clip.training


def test_a_group_without_candidates_is_easy(crops: CropBank) -> None:
    labels = crops.labels.copy()
    labels[1] = -1  # SAM proposed nothing
    texts = F.normalize(torch.ones(len(KINDS), EMBED_DIM), dim=-1)
    chances = hard_groups(load_bundled_clip()[0], replace(crops, labels=labels), texts)
    assert chances.argmin() == 1
    assert chances[1] > 0


def test_a_group_without_the_organ_is_drawn_as_often_as_the_mean_of_the_others(
    crops: CropBank,
) -> None:
    texts = F.normalize(torch.ones(len(KINDS), EMBED_DIM), dim=-1)
    grades = crops.grades.copy()
    grades[4] = 0.0
    chances = hard_groups(load_bundled_clip()[0], replace(crops, grades=grades), texts)
    others = np.delete(chances, 4)
    assert others.max() > others.min()
    assert chances[4] == pytest.approx(others.mean())


def test_batches_draw_by_probability(bank: Bank, crops: CropBank, tmp_path: Path) -> None:
    only = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    alone = replace(bank, images=bank.images[3:], labels=bank.labels[3:], shapes=bank.shapes[3:])
    drawn = SamBatches([bank], seed=0, batch_size=2, chances=[only]).batch(0)
    expected = SamBatches([alone], seed=0, batch_size=2, chances=[only[3:]]).batch(0)
    assert torch.equal(drawn.images, expected.images)

    second = torch.eye(6, dtype=torch.float64)[1]
    batch, _ = CropBatches([crops], Sentences(), seed=0, batch_size=3, chances=[second]).batch(0)
    assert all(np.array_equal(grades, crops.grades[1]) for grades in batch.grades)
