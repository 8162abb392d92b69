"""Training of the bundled SAM on phantoms."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from salip_ray.models.bundled.phantoms import KINDS
from salip_ray.models.bundled.sam_net import build_bundled_sam, load_bundled_sam
from training.bank import open_bank
from training.hard import hard_phantoms
from training.loop import log_figures, prefetched
from training.options import Progress, TrainOptions, warmup_cosine
from training.resume import load_checkpoint, save_checkpoint
from training.sam_data import Batch, SamBatches
from training.sam_eval import prompt_ious
from training.sam_losses import StructureHead, sam_loss

log = logging.getLogger(__name__)

_PEAK_RATE = 1.2e-3
_WEIGHT_DECAY = 0.02
_CLIP_NORM = 1.0
_AVERAGING = 0.995  # per step: weights averaged over the last few hundred
_LOG_EVERY = 20  # steps


def train_sam(options: TrainOptions) -> Path:
    """Train, or resume training, until the budget is spent; export after every checkpoint.

    Writes to `options.out`: `banks/`, `sam.checkpoint.pt` (to resume), `sam.log.jsonl` (losses
    and tuning-bank IoU over steps and seconds) and `sam.safetensors`, the float16 weights averaged
    over recent steps: usable at any time, best at the end of the cosine.

    Returns:
        The exported weights.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    folder = options.out / "banks"
    banks = [open_bank(folder, kind, "train", options.bank_size) for kind in KINDS]
    tune = [open_bank(folder, kind, "tune", options.tune_size) for kind in KINDS]

    sam = build_bundled_sam() if options.init is None else load_bundled_sam(options.init)
    sam = sam.train().to(options.device)
    checkpoint = options.out / "sam.checkpoint.pt"
    run = options.recipe()
    state = load_checkpoint(checkpoint, run)
    chances: list[Tensor] | None = None if state is None else state["chances"]
    if state is None and options.init is not None and not options.evenly:
        log.info("searching for the phantoms that %s is bad at", options.init)
        chances = [torch.from_numpy(hard_phantoms(sam, bank)) for bank in banks]
    batches = SamBatches(banks, seed=options.seed, batch_size=options.batch_size, chances=chances)

    sam.image_encoder.to(memory_format=torch.channels_last)
    head = StructureHead(batches.classes).to(options.device)
    averaging = get_ema_multi_avg_fn(_AVERAGING)
    averaged = AveragedModel(sam, multi_avg_fn=averaging)
    optimiser = _optimiser(nn.ModuleList((sam, head)))
    trained = {"sam": sam, "head": head, "averaged": averaged, "optimiser": optimiser}
    peak = options.peak_rate or _PEAK_RATE

    progress = Progress(options)
    if state is not None:
        for name, part in trained.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        progress = Progress(options, step=state["step"], spent_seconds=state["seconds"])
        log.info("resuming at step %d, %.0f s", progress.step, progress.seconds)

    weights, log_file = options.out / "sam.safetensors", options.out / "sam.log.jsonl"

    def save() -> None:
        scores = prompt_ious(averaged.module, tune)
        log_figures(log_file, progress, scores)
        save_checkpoint(
            checkpoint,
            {
                **{name: part.state_dict() for name, part in trained.items()},
                "chances": chances,
                "rng": torch.get_rng_state(),
                "run": run,
                "step": progress.step,
                "seconds": progress.seconds,
            },
        )
        export_sam(averaged.module, weights)

    saved_at = progress.seconds
    for batch in prefetched(batches.batch, progress.step):
        if progress.done:
            break
        batch = batch.to(options.device)
        losses = _step(sam, head, averaged, optimiser, batch, peak, progress)
        progress.step += 1
        if progress.step % _LOG_EVERY == 0:
            log_figures(log_file, progress, losses)
        if progress.seconds - saved_at > 60.0 * options.checkpoint_minutes:
            save()
            saved_at = progress.seconds
    save()
    return weights


def export_sam(sam: nn.Module, path: Path) -> None:
    """Write a SAM's weights as float16 safetensors."""
    tensors = {name: t.detach().half().cpu().contiguous() for name, t in sam.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def _optimiser(model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW with decay for matrices, not for norms, biases and single-row embeddings."""
    decayed = [p for p in model.parameters() if p.ndim >= 2 and p.shape[0] > 1]
    others = [p for p in model.parameters() if not (p.ndim >= 2 and p.shape[0] > 1)]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0}],
        lr=_PEAK_RATE,
        betas=(0.9, 0.98),
    )


def _step(
    sam: Sam,
    head: StructureHead,
    averaged: AveragedModel,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    peak: float,
    progress: Progress,
) -> dict[str, float]:
    rate = warmup_cosine(progress.fraction, peak=peak)
    for group in optimiser.param_groups:
        group["lr"] = rate
    # The second prompt of a box alternates between its mask, mask and point, and point.
    turn = progress.step % 3
    losses = sam_loss(sam, head, batch, with_mask=turn != 2, with_point=turn != 0)
    optimiser.zero_grad(set_to_none=True)
    losses["total"].backward()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
    optimiser.step()
    averaged.update_parameters(sam)
    return {"rate": rate, **{name: loss.item() for name, loss in losses.items()}}
