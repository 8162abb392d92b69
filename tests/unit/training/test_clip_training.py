from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from salip_ray.cascade.proposer import SamProposer
from salip_ray.config import load_config
from salip_ray.models.bundled.clip_net import (
    EMBED_DIM,
    WEIGHTS,
    build_bundled_clip,
    load_bundled_clip,
)
from salip_ray.models.bundled.sam_net import load_bundled_sam
from training import clip_mining, clip_train
from training.clip_data import (
    GROUP,
    open_crop_bank,
    structure_group,
    write_crop_bank,
)
from training.clip_losses import Anchors, CropBatch, clip_loss, ranking_loss
from training.clip_mining import _STEM, mine, mined_group, open_mined_bank
from training.options import TrainOptions
from training.sentences import LABELS


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Path:
    """A folder of a run whose crops have been generated."""
    folder = tmp_path_factory.mktemp("clip")
    open_crop_bank(folder / "crops", "train", 6)
    return folder


def options(folder: Path, crops: Path, **changes) -> TrainOptions:
    folder.mkdir()
    (folder / "crops").symlink_to(crops / "crops")
    settings = {"steps": 4, "threads": 1, "batch_size": 2, "bank_size": 2, "seed": 3}
    return TrainOptions(out=folder, **{**settings, **changes})


def test_a_bank_is_generated_once_and_is_always_the_same(crops, monkeypatch):
    bank = open_crop_bank(crops / "crops", "train", 6)
    assert len(bank) == 6
    again = structure_group(4, split="train")
    for name, value in again.items():
        assert np.array_equal(getattr(bank, name)[4], value)
    shown = bank.labels[..., 0] >= 0
    assert (bank.crops[shown].max(axis=(1, 2, 3)) > 0).mean() > 0.9
    assert not bank.crops[~shown].any()
    tuned = structure_group(4, split="tune")
    assert not np.array_equal(tuned["crops"], again["crops"])


def test_incomplete_banks_are_written_again(tmp_path):
    def torn():
        yield structure_group(0, split="train")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crop_bank(tmp_path, _STEM, 2, torn())
    assert open_mined_bank(tmp_path) == []
    write_crop_bank(tmp_path, _STEM, 1, iter([structure_group(0, split="train")]))
    [bank] = open_mined_bank(tmp_path)
    assert np.array_equal(bank.grades[0], structure_group(0, split="train")["grades"])
    with pytest.raises(KeyboardInterrupt):  # a complete bank that is written again
        write_crop_bank(tmp_path, _STEM, 2, torn())
    assert open_mined_bank(tmp_path) == []


@pytest.mark.parametrize("number", [0, 2])
def test_a_bank_of_other_phantoms_is_written_again(number, crops, tmp_path):
    folder = shutil.copytree(crops / "crops", tmp_path / "crops")
    stored = np.load(folder / "crops-train-6.grades.npy", mmap_mode="r+")
    right = stored.copy()
    stored[number] = 0.5
    stored.flush()
    assert np.array_equal(open_crop_bank(folder, "train", 6).grades, right)


def test_mined_groups_do_not_depend_on_the_number_of_processes(tmp_path):
    banks = []
    for workers in (1, 2):
        mine(tmp_path / str(workers), 3, None, workers=workers)
        banks += open_mined_bank(tmp_path / str(workers))
    assert (banks[0].labels[:, :, 0] >= 0).any(axis=1).all()
    assert np.array_equal(banks[0].crops, banks[1].crops)


def test_one_mined_group_in_four_is_without_the_organ():
    proposer = SamProposer(load_bundled_sam(), load_config(clip_mining._PROPOSE))
    groups = [mined_group(proposer, index, split="train") for index in (0, 3, 6, 9)]
    assert [int(group["kinds"]) for group in groups] == [0, 0, 0, 0]
    assert [group["grades"].max() > 0 for group in groups] == [True, True, True, False]
    assert (groups[3]["labels"] >= 0).any()
    lungs = {LABELS.index("lungs"), LABELS.index("lung fragment")}
    assert not lungs & set(groups[3]["labels"].ravel().tolist())


@pytest.mark.parametrize("init", [None, pytest.param(WEIGHTS, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_in_the_same_bytes(init, tmp_path, crops, monkeypatch):
    whole = clip_train.train_clip(options(tmp_path / "whole", crops, init=init))
    broken = options(tmp_path / "broken", crops, checkpoint_minutes=1e-9, init=init)
    step = clip_train._step

    def killed(*args):
        if args[-1].step == 2:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(clip_train, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        clip_train.train_clip(broken)
    monkeypatch.setattr(clip_train, "_step", step)
    resumed = clip_train.train_clip(broken)
    assert resumed.read_bytes() == whole.read_bytes()
    load_bundled_clip(whole)


@pytest.mark.slow
def test_training_lowers_the_loss_and_logs_it(tmp_path, crops):
    before = options(tmp_path / "run", crops, steps=20)
    torch.manual_seed(before.seed)
    clip_train.train_clip(before)
    [line] = map(json.loads, (tmp_path / "run" / "clip.log.jsonl").read_text().splitlines())
    assert line["step"] == 20
    first = _first_loss(before)
    assert line["total"] < first - 0.3
    assert "token_embedding.rows" in load_file(tmp_path / "run" / "clip.safetensors")


def test_a_run_starts_from_given_weights(tmp_path, crops):
    warm = options(tmp_path / "warm", crops, steps=1, init=WEIGHTS, peak_rate=1e-7)
    model, shipped = (load_bundled_clip(path)[0] for path in (clip_train.train_clip(warm), None))
    names = dict(shipped.named_parameters())
    for name, tensor in model.named_parameters():
        torch.testing.assert_close(tensor, names[name], atol=2e-3, rtol=2e-3)


def _first_loss(options: TrainOptions) -> float:
    bank = open_crop_bank(options.out / "crops", "train", 6)
    sentences = clip_train.Sentences()
    batches = clip_train.CropBatches(
        [bank], sentences, seed=options.seed, batch_size=options.batch_size
    )
    torch.manual_seed(options.seed)
    clip = build_bundled_clip(len(sentences.tokens) + 1)
    batch, tokens = batches.batch(19)
    losses = clip_loss(clip, Anchors(len(LABELS), EMBED_DIM), batch, tokens)
    return losses["total"].item()


def test_the_same_seed_and_step_give_the_same_batch(crops):
    bank = open_crop_bank(crops / "crops", "train", 6)
    sentences = clip_train.Sentences()
    one, other = (clip_train.CropBatches([bank], sentences, seed=1, batch_size=2) for _ in range(2))
    other.batch(0)  # what was drawn before does not matter
    (a, a_tokens), (b, b_tokens) = one.batch(5), other.batch(5)
    assert torch.equal(a.crops, b.crops)
    assert torch.equal(a_tokens, b_tokens)
    assert a.crops.shape == (2 * GROUP, 3, 64, 64)
    assert a_tokens.shape == (len(LABELS), 77)
    assert not torch.equal(a.crops, one.batch(6)[0].crops)


def test_the_ranking_loss_is_least_in_the_order_of_grades():
    grades = torch.tensor([[1.0, 0.7, 0.2, 0.0]])
    batch = CropBatch(
        crops=torch.zeros(4, 3, 64, 64),
        labels=torch.tensor([[0, 0], [1, 1], [2, 2], [-1, -1]]),
        shares=torch.ones(4),
        grades=grades,
        targets=torch.tensor([0]),
    )

    def loss(*scores: float) -> float:
        logits = torch.zeros(1, 4, len(LABELS))
        logits[0, :, 0] = torch.tensor(scores)
        return float(ranking_loss(logits, batch))

    right = loss(14.0, 9.8, 2.8, 0.0)
    assert right == pytest.approx(0.0, abs=1e-4)
    assert loss(14.0, 9.8, 2.8, 99.0) == pytest.approx(right, abs=1e-4)  # no crop there
    assert right < loss(9.8, 9.8, 2.8, 0.0) < loss(2.8, 9.8, 14.0, 0.0)
