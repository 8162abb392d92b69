"""Training of the bundled CLIP on crops of phantoms."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from open_clip import CLIP, SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from salip_ray.models.bundled.clip_net import (
    EMBED_DIM,
    build_bundled_clip,
    bundled_preprocess,
    bundled_tokenizer,
    compact_state,
    compact_tokens,
    load_bundled_clip,
    save_bundled_clip,
)
from salip_ray.models.bundled.phantoms import KINDS
from salip_ray.models.bundled.vocabulary import load_vocabulary, training_texts
from training.clip_candidates import TARGET_LABEL
from training.clip_data import CropBank, open_crop_bank
from training.clip_losses import (
    Anchors,
    CropBatch,
    clip_loss,
    encode_text,
)
from training.clip_mining import open_mined_bank
from training.hard import hard_groups
from training.loop import log_figures, prefetched
from training.options import Progress, TrainOptions, warmup_cosine
from training.resume import load_checkpoint, save_checkpoint
from training.sentences import LABELS, train_sentence

log = logging.getLogger(__name__)

_PEAK_RATE = 1.5e-3
_WEIGHT_DECAY = 0.05
_CLIP_NORM = 1.0
_AVERAGING = 0.98  # per step: weights averaged over the last fifty or so
_HIGHEST_SCALE = math.log(100.0)  # CLIP's own bound of its logit scale
_FORGOTTEN_WORDS = 0.06  # share of tokens replaced by "any other", as an unknown word is
_LOG_EVERY = 20  # steps
_SENTENCES_PER_ORGAN = 8  # in the search for groups that a model is bad at
_TARGETS = torch.tensor([LABELS.index(TARGET_LABEL[kind]) for kind in KINDS])


def train_clip(options: TrainOptions) -> Path:
    """Train, or resume training, until the budget is spent; export after every checkpoint.

    `options.batch_size` counts images, each with up to 16 candidates; `options.bank_size` counts
    phantoms of a kind. Masks that a trained SAM proposed take part if `clip_mining` has written
    them to `options.out`.

    Writes to `options.out`: `crops/`, `clip.checkpoint.pt` (to resume), `clip.log.jsonl` and
    `clip.safetensors`, the float16 weights averaged over recent steps: usable at any time, best
    at the end of the cosine.

    Returns:
        The exported weights.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    folder = options.out / "crops"
    made = open_crop_bank(folder, "train", options.bank_size * len(KINDS), workers=options.threads)
    banks = [made, *open_mined_bank(folder)]
    sentences = Sentences()
    tokens = sentences.tokens
    clip = build_bundled_clip(len(tokens) + 1)
    if options.init is not None:
        clip.load_state_dict(compact_state(load_bundled_clip(options.init)[0], tokens))
    clip = clip.to(options.device)
    checkpoint = options.out / "clip.checkpoint.pt"
    run = {**options.recipe(), "groups": [len(bank) for bank in banks]}
    state = load_checkpoint(checkpoint, run)
    chances: list[Tensor] | None = None if state is None else state["chances"]
    if state is None and options.init is not None and not options.evenly:
        log.info("searching for the groups that %s is bad at", options.init)
        organs = sentences.of_organs(clip, options.seed)
        chances = [torch.from_numpy(hard_groups(clip, bank, organs)) for bank in banks]
    batches = CropBatches(
        banks, sentences, seed=options.seed, batch_size=options.batch_size, chances=chances
    )
    peak = options.peak_rate or _PEAK_RATE
    clip.visual.to(memory_format=torch.channels_last)
    averaged = AveragedModel(clip, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGING), use_buffers=True)
    anchors = Anchors(len(LABELS), EMBED_DIM).to(options.device)
    optimiser = _optimiser(nn.ModuleDict({"clip": clip, "embedding of classes": anchors}))
    trained = {"clip": clip, "anchors": anchors, "averaged": averaged, "optimiser": optimiser}

    progress = Progress(options)
    if state is not None:
        for name, part in trained.items():
            part.load_state_dict(state[name])
        progress = Progress(options, step=state["step"], spent_seconds=state["seconds"])
        log.info("resuming at step %d, %.0f s", progress.step, progress.seconds)

    weights, log_file = options.out / "clip.safetensors", options.out / "clip.log.jsonl"

    def save() -> None:
        save_checkpoint(
            checkpoint,
            {
                **{name: part.state_dict() for name, part in trained.items()},
                "chances": chances,
                "run": run,
                "step": progress.step,
                "seconds": progress.seconds,
            },
        )
        save_bundled_clip(averaged.module.state_dict(), tokens, weights)

    saved_at = progress.seconds
    for batch, texts in prefetched(batches.batch, progress.step):
        if progress.done:
            break
        batch, texts = _on(batch, options.device), texts.to(options.device)
        losses = _step(clip, anchors, averaged, optimiser, batch, texts, peak, progress)
        progress.step += 1
        if progress.step % _LOG_EVERY == 0:
            log_figures(log_file, progress, losses)
        if progress.seconds - saved_at > 60.0 * options.checkpoint_minutes:
            save()
            saved_at = progress.seconds
    save()
    return weights


class Sentences:
    """Random training sentences of every class, in compact token ids (see `clip_net`)."""

    def __init__(self) -> None:
        self.tokenizer: SimpleTokenizer = bundled_tokenizer()
        used = self.tokenizer(list(training_texts()))
        # It contains the start and end of a text, and the padding 0, which needs no row.
        self.tokens = used[used > 0].unique()

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw a sentence of every class: int64 [classes, 77]."""
        classes = load_vocabulary().classes
        texts = [train_sentence(taught, rng) for taught in classes]
        ids = compact_tokens(self.tokenizer(texts), self.tokens)
        # CLIP finds the end of the text by its id, the highest one: it must stay.
        words = (ids > 0) & (ids < len(self.tokens) - 1)
        forgotten = torch.from_numpy(rng.random(ids.shape) < _FORGOTTEN_WORDS)
        return ids.masked_fill(words & forgotten, 0)

    @torch.no_grad()
    def of_organs(self, clip: CLIP, seed: int) -> Tensor:
        """Return text features of the organ of each kind, float32 [kinds, d]."""
        rng = np.random.default_rng(seed)
        ids = torch.stack([self.draw(rng) for _ in range(_SENTENCES_PER_ORGAN)])[:, _TARGETS]
        features = encode_text(clip, ids.flatten(0, 1).to(clip.logit_scale.device))
        each: Tensor = F.normalize(features, dim=-1).unflatten(0, ids.shape[:2])
        return each.mean(dim=0)


class CropBatches:
    """Batches that depend on the seed and the step only: a resumed run draws the same ones."""

    def __init__(
        self,
        banks: list[CropBank],
        sentences: Sentences,
        *,
        seed: int,
        batch_size: int,
        chances: Sequence[Tensor] | None = None,
    ) -> None:
        """Draw each group of a bank by its probability in `chances` [N]; else equally."""
        self.banks = banks
        self.chances = None if chances is None else [c.numpy() for c in chances]
        self.seed = seed
        self.batch_size = batch_size
        self.sentences = sentences
        normalise = bundled_preprocess().transforms[-1]  # type: ignore[attr-defined]
        self.mean, self.std = (torch.tensor(values) for values in (normalise.mean, normalise.std))

    def batch(self, step: int) -> tuple[CropBatch, Tensor]:
        """Return the augmented crops of one step, and sentences int64 [classes, 77]."""
        rng = np.random.default_rng((self.seed, step))
        groups = []
        for index in range(self.batch_size):
            turn = index % len(self.banks)  # the banks take turns
            bank = self.banks[turn]
            chances = None if self.chances is None else self.chances[turn]
            groups.append((bank, int(rng.choice(len(bank), p=chances))))
        crops = torch.from_numpy(
            np.stack([_augment(bank.crops[index], rng) for bank, index in groups])
        )
        labels, shares, grades = (
            torch.from_numpy(np.stack([getattr(bank, name)[index] for bank, index in groups]))
            for name in ("labels", "shares", "grades")
        )
        kinds = torch.tensor([int(bank.kinds[index]) for bank, index in groups])
        # A permuted view has channels last in memory, which is fast in the vision tower.
        pixels = crops.flatten(0, 1).float().div_(255.0).sub_(self.mean).div_(self.std)
        batch = CropBatch(
            crops=pixels.permute(0, 3, 1, 2),
            labels=labels.long().flatten(0, 1),
            shares=shares.flatten(),
            grades=grades,
            targets=_TARGETS[kinds],
        )
        return batch, self.sentences.draw(rng)


def _augment(group: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Flip, zoom and shift the crops [M, S, S, 3] of a group a little and change their brightness.

    All crops change alike, as with another image; black stays black.
    """
    side = group.shape[1]
    zoom = 1 + rng.normal(0, 0.04, 2)
    zoom[0] *= rng.choice((-1, 1))
    middle = (side - 1) / 2
    shift = middle - zoom * middle + rng.normal(0, 0.015 * side, 2)
    matrix = np.column_stack((np.diag(zoom), shift))
    gamma, gain = np.exp(rng.normal(0, 0.3)), np.exp(rng.normal(0, 0.25))
    curve = 255 * np.clip(gain * np.linspace(0, 1, 256) ** gamma, 0, 1)
    moved = [cv2.warpAffine(crop, matrix, (side, side)) for crop in group]
    return np.asarray(curve.round().astype(np.uint8)[np.stack(moved)])


def _optimiser(model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW with decay for matrices and kernels, not for norms, biases and embeddings."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or "embedding" in name
        (others if plain else decayed).append(parameter)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0}],
        lr=_PEAK_RATE,
        betas=(0.9, 0.98),
    )


def _step(
    clip: CLIP,
    anchors: Anchors,
    averaged: AveragedModel,
    optimiser: torch.optim.Optimizer,
    batch: CropBatch,
    tokens: Tensor,
    peak: float,
    progress: Progress,
) -> dict[str, float]:
    rate = warmup_cosine(progress.fraction, peak=peak)
    for group in optimiser.param_groups:
        group["lr"] = rate
    clip.train()
    losses = clip_loss(clip, anchors, batch, tokens)
    optimiser.zero_grad(set_to_none=True)
    losses["total"].backward()
    nn.utils.clip_grad_norm_((p for g in optimiser.param_groups for p in g["params"]), _CLIP_NORM)
    optimiser.step()
    with torch.no_grad():
        clip.logit_scale.clamp_(0.0, _HIGHEST_SCALE)
    averaged.update_parameters(clip)
    figures = {name: float(loss.detach()) for name, loss in losses.items()}
    return {"rate": rate, "scale": float(clip.logit_scale.detach().exp()), **figures}


def _on(batch: CropBatch, device: str) -> CropBatch:
    return CropBatch(*(getattr(batch, name).to(device) for name in CropBatch.__dataclass_fields__))
