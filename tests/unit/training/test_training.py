"""Banks, augmentation, prompts, losses, and the resumption of SAM's training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from salip_ray.errors import ConfigError, WeightsError
from salip_ray.models.bundled.phantoms import KINDS, make_phantom
from salip_ray.models.bundled.sam_net import WEIGHTS, build_bundled_sam
from training import (
    Progress,
    TrainOptions,
    augment,
    sam_train,
    warmup_cosine,
)
from training.bank import Bank, open_bank
from training.resume import load_checkpoint, save_checkpoint
from training.sam_data import SamBatches
from training.sam_eval import prompt_ious
from training.sam_losses import StructureHead, sam_loss
from training.sam_prompts import (
    NOT_ASKED_FOR,
    NOTHING,
    OTHER_ORGANS,
    TARGET_ORGANS,
    draw_prompts,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the banks of all kinds, which runs share."""
    folder = tmp_path_factory.mktemp("banks")
    for kind in KINDS:
        open_bank(folder, kind, "train", 4, workers=1)
        open_bank(folder, kind, "tune", 1, workers=1)
    return folder


@pytest.fixture(scope="module")
def banks(bank_folder: Path) -> list[Bank]:
    return [open_bank(bank_folder, kind, "train", 4, workers=1) for kind in KINDS]


def small_run(out: Path, bank_folder: Path, **options: Any) -> TrainOptions:
    """Return the options of a run on two phantoms of each kind."""
    out.mkdir(exist_ok=True)
    if not (out / "banks").exists():
        (out / "banks").symlink_to(bank_folder)
    sizes = {"threads": 1, "batch_size": 1, "bank_size": 2, "tune_size": 1}
    return TrainOptions(out=out, **sizes, **options)


def _square(level: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose only bright object is its only structure (bit 31)."""
    image, labels = np.zeros((256, 256), np.uint8), np.zeros((256, 256), np.uint32)
    image[90:170, 80:180] = level
    labels[90:170, 80:180] = np.uint32(1) << np.uint32(31)
    return image, labels


# ------------------------------------------------------------------------------------- bank


def test_a_bank_stores_image_and_masks_of_each_phantom(banks: list[Bank]) -> None:
    for bank in banks:
        for index in range(len(bank)):
            phantom = make_phantom(bank.kind, index, bank="train")
            image, labels = bank.phantom(index)
            assert np.array_equal(image, phantom.image[..., 0])
            for organ in TARGET_ORGANS[bank.kind]:
                stored = np.zeros(image.shape, bool)
                for bit, name in enumerate(bank.names):
                    if name == organ:
                        stored |= (labels >> bit & 1).astype(bool)
                assert np.array_equal(stored, phantom.mask(organ)), organ


def test_a_bank_is_generated_once_and_again_when_too_small(tmp_path: Path) -> None:
    kind = KINDS[0]
    images = tmp_path / f"{kind}-tune-64.images.npy"
    assert len(open_bank(tmp_path, kind, "tune", 2, size=64, workers=1)) == 2
    written = images.stat().st_mtime_ns
    assert len(open_bank(tmp_path, kind, "tune", 1, size=64, workers=1)) == 1
    assert images.stat().st_mtime_ns == written
    assert len(open_bank(tmp_path, kind, "tune", 3, size=64, workers=1)) == 3


def test_a_bank_of_another_generator_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS[0]
    before = np.array(open_bank(tmp_path, kind, "tune", 1, size=64, workers=1).images)

    def shifted(kind: str, index: int, *, bank: str, size: int) -> object:
        return make_phantom(kind, index + 7, bank=bank, size=size)

    monkeypatch.setattr("training.bank.make_phantom", shifted)
    after = open_bank(tmp_path, kind, "tune", 1, size=64, workers=1).images
    assert not np.array_equal(before, after)


# ---------------------------------------------------------------------------------- augment


def test_the_same_seed_gives_the_same_augmentation() -> None:
    image, labels = _square()
    first, same, other = (
        augment.augment(image, labels, "brain_mri", np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.image, same.image)
    assert np.array_equal(first.labels, same.labels)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_move_with_the_image(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "vary_appearance", lambda image, rng: image)
    image, labels = _square()
    for seed in range(20):
        sample = augment.augment(image, labels, kind, np.random.default_rng(seed))
        height, width = sample.content
        assert max(height, width) == 256
        assert set(np.unique(sample.labels)) <= {0, 1 << 31}
        assert not sample.labels[height:].any()
        assert not sample.labels[:, width:].any()
        bright, marked = sample.image > 127, sample.labels > 0
        # Bars may be white: only what the labels mark must be bright, and little else.
        assert (bright & marked).sum() >= 0.95 * marked.sum()
        if not (sample.image[:height, :width] == 255).all(axis=0).any():
            assert (bright & ~marked).sum() <= 0.1 * max(marked.sum(), 500)


def test_appearance_stays_within_grey_levels() -> None:
    image, labels = _square(200)
    for seed in range(20):
        sample = augment.augment(image, labels, "chest_xray", np.random.default_rng(seed))
        assert np.isfinite(sample.image).all()
        assert sample.image.min() >= 0.0
        assert sample.image.max() <= 255.0


# ---------------------------------------------------------------------------------- prompts


def test_training_prompts_lie_in_their_targets(banks: list[Bank]) -> None:
    nothing = on_target = on_other = points = 0
    for bank in banks:
        targets = TARGET_ORGANS[bank.kind]
        asked = sum(1 << s for s, name in enumerate(bank.names) if name not in NOT_ASKED_FOR)
        for seed in range(12):
            rng = np.random.default_rng(seed)
            image, labels = bank.phantom(seed % len(bank))
            sample = augment.augment(image, labels, bank.kind, rng)
            prompts = draw_prompts(sample, bank.names, bank.roles, bank.kind, rng)
            if prompts is None:
                continue
            for (x, y), wanted in zip(
                prompts.points.astype(int), prompts.point_targets, strict=True
            ):
                points += 1
                here = int(sample.labels[y, x])
                if wanted[0] == NOTHING:
                    nothing += 1
                    assert here & asked == 0
                    assert (wanted == NOTHING).all()
                    assert y < sample.content[0]
                    assert x < sample.content[1]
                else:
                    assert all(here >> s & 1 for s in wanted)
                    assert not NOT_ASKED_FOR & {bank.names[s] for s in wanted}
                    on_target += bank.names[wanted[1]] in targets
                    on_other += any(bank.names[s] in OTHER_ORGANS[bank.kind] for s in wanted)
            for box, s in zip(prompts.boxes, prompts.box_targets, strict=True):
                ys, xs = np.nonzero(sample.labels >> s & 1)
                tight = np.array((xs.min(), ys.min(), xs.max(), ys.max()))
                assert np.abs(box - tight).max() <= 20
    assert 0.04 < nothing / points < 0.25
    assert on_target / points > 0.4
    assert on_other / points > 0.25


def test_a_missing_role_falls_back_to_the_organ() -> None:
    names, roles = ("vessel", "brain", "body"), ("part", "organ", "whole")
    labels = np.full((256, 256), 0b010, np.uint32)
    sample = augment.Sample(np.zeros((256, 256), np.float32), labels, (256, 256))
    rng = np.random.default_rng(0)
    prompts = draw_prompts(sample, names, roles, "brain_mri", rng)
    assert prompts is not None
    assert (prompts.point_targets == 1).all()

    labels[64:192, 64:192] |= 0b101
    prompts = draw_prompts(sample, names, roles, "brain_mri", rng)
    assert prompts is not None
    for (x, y), wanted in zip(prompts.points, prompts.point_targets, strict=True):
        inside = 64 <= x < 192 and 64 <= y < 192
        assert tuple(wanted) == ((0, 1, 2) if inside else (1, 1, 1))


# ------------------------------------------------------------------------------------- loss


def test_a_few_steps_on_one_batch_lower_every_loss(banks: list[Bank]) -> None:
    torch.manual_seed(0)
    batches = SamBatches(banks, seed=0, batch_size=2)
    batch = batches.batch(0)
    sam, head = build_bundled_sam(), StructureHead(batches.classes)
    optimiser = torch.optim.AdamW([*sam.parameters(), *head.parameters()], lr=1e-3)
    history = []
    for _ in range(25):
        losses = sam_loss(sam, head, batch, with_mask=True, with_point=True)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    for name in ("total", "point", "box", "again", "auxiliary"):
        assert history[-1][name] < 0.9 * history[0][name], name
    # Every weight of the encoder is trained.
    assert all(p.grad is not None for p in sam.image_encoder.parameters())


def test_prompt_ious_of_an_untrained_model_are_low(banks: list[Bank]) -> None:
    torch.manual_seed(0)
    scores = prompt_ious(build_bundled_sam(), [bank.head(2) for bank in banks])
    titles = {name.rpartition("/")[0] for name in scores}
    assert titles >= {*KINDS, "heart", "spine"}
    assert titles <= {*KINDS, *(name for names in OTHER_ORGANS.values() for name in names)}
    assert set(scores) == {f"{t}/{name}" for t in titles for name in ("box", "point", "chosen")}
    # A head fills most of a picture: any large mask fits its outline.
    of_head = {name for name in scores if name.startswith("head outline/")}
    assert all(0.0 <= scores[name] < 0.6 for name in scores.keys() - of_head)
    assert all(0.0 <= scores[name] < 0.9 for name in of_head)


# ------------------------------------------------------------------------- budget and resume


def test_options_with_no_or_two_budgets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        TrainOptions(out=tmp_path)
    with pytest.raises(ConfigError, match="exactly one"):
        TrainOptions(out=tmp_path, minutes=1, steps=1)
    with pytest.raises(ConfigError, match="threads is 0"):
        TrainOptions(out=tmp_path, steps=1, threads=0)
    with pytest.raises(ConfigError, match="peak_rate is 0"):
        TrainOptions(out=tmp_path, steps=1, peak_rate=0.0)


def test_progress_counts_the_time_of_earlier_parts(tmp_path: Path) -> None:
    by_clock = Progress(TrainOptions(out=tmp_path, minutes=10), step=7, spent_seconds=300)
    assert 0.5 <= by_clock.fraction < 0.51
    by_step = Progress(TrainOptions(out=tmp_path, steps=10), step=10)
    assert by_step.done


def test_the_rate_rises_then_falls() -> None:
    rates = [warmup_cosine(f, peak=1.0) for f in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(1.0)
    assert top == 3
    assert rates[0] < 0.05
    assert rates[-1] == pytest.approx(0.01)
    assert all(a > b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))


@pytest.mark.parametrize("init", [None, pytest.param(WEIGHTS, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    init: Path | None, tmp_path: Path, bank_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(name: str) -> TrainOptions:
        return small_run(tmp_path / name, bank_folder, steps=4, checkpoint_minutes=0, init=init)

    whole = load_file(sam_train.train_sam(options("whole")))

    step = sam_train._step

    def killed_in_the_third_step(*arguments: object) -> dict[str, float]:
        if arguments[-1].step == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sam_train, "_step", killed_in_the_third_step)
        with pytest.raises(KeyboardInterrupt):
            sam_train.train_sam(options("parts"))
    state = load_checkpoint(tmp_path / "parts" / "sam.checkpoint.pt", options("parts").recipe())
    assert state is not None
    assert state["step"] == 2

    parts = load_file(sam_train.train_sam(options("parts")))
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_a_run_starts_from_given_weights_at_the_given_rate(
    tmp_path: Path, bank_folder: Path
) -> None:
    def trained(name: str, **options: Any) -> dict[str, torch.Tensor]:
        run = small_run(tmp_path / name, bank_folder, steps=1, **options)
        return load_file(sam_train.train_sam(run))

    shipped = load_file(WEIGHTS)
    close = trained("warm", init=WEIGHTS, peak_rate=1e-2)
    assert all(torch.allclose(close[n], shipped[n], atol=2e-3, rtol=2e-3) for n in shipped)
    assert not all(torch.equal(close[n], shipped[n]) for n in shipped)
    cold = trained("cold", peak_rate=1e-2)
    name = "image_encoder.project.weight"
    assert not torch.allclose(cold[name], shipped[name], atol=1e-2)


def test_a_checkpoint_of_another_run_or_with_invalid_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam.checkpoint.pt"
    run = TrainOptions(out=tmp_path, steps=1).recipe()
    assert load_checkpoint(path, run) is None
    save_checkpoint(path, {"run": run, "step": 3})
    assert load_checkpoint(path, run) == {"run": run, "step": 3}
    for changed in ({"seed": 1}, {"batch_size": 9}, {"bank_size": 9}, {"init": WEIGHTS}):
        other = TrainOptions(out=tmp_path, steps=1, **changed).recipe()
        with pytest.raises(WeightsError, match=f"of a run with {next(iter(changed))} .*, not "):
            load_checkpoint(path, other)
    save_checkpoint(path, {"step": 3})  # as before options were stored
    with pytest.raises(WeightsError, match="of a run with seed None, not 0"):
        load_checkpoint(path, run)
    path.write_bytes(b"rubbish")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_checkpoint(path, run)
