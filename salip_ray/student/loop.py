"""The training loop of a student, without a cluster.

A :class:`TrainingRun` is all that changes while a student learns. Its state after an epoch decides
everything that follows, so a resumed run ends with the weights of one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from salip_ray.errors import JobError, ResumeError
from salip_ray.student.loss import hard_dice, student_loss
from salip_ray.student.options import StudentOptions

_AVERAGING = 0.99  # per step
_PRETRAINED_SHARE = 0.1  # of the learning rate: trained weights need small steps
Batch = Mapping[str, Tensor]  #: of :class:`salip_ray.student.samples.Example`, collated


@dataclass(frozen=True)
class Total:
    """A sum and the number of its terms, so that workers can add theirs."""

    sum: float = 0.0
    count: float = 0.0

    @property
    def mean(self) -> float:
        """The mean of the terms; NaN without any."""
        return self.sum / self.count if self.count else math.nan


class TrainingRun:
    """A network, its optimiser, and the best weights so far.

    The weights that are validated and saved are averages over the last hundred or so steps: they
    are better than those of any one step.

    Args:
        net: trained in place; already on ``device``.
        options: of these, ``rate``, ``epochs`` and ``confidence_power`` matter here.
        device: the device of the batches.
    """

    def __init__(self, net: nn.Module, options: StudentOptions, device: torch.device) -> None:
        self.net, self.options, self.device = net, options, device
        self.optimiser = torch.optim.AdamW(_groups(net), lr=options.rate, weight_decay=1e-4)
        self.averaged = AveragedModel(unwrapped(net), avg_fn=_average)
        self.epochs_done = 0
        self.best_dice = -math.inf
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []

    def learn(self, batches: Iterable[Batch]) -> Total:
        """Train for one epoch; return the loss, summed over batches.

        Raises:
            JobError: the loss is not finite.
        """
        rate = self.options.rate * _decay(self.epochs_done / self.options.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.net.train()
        loss_sum, steps = 0.0, 0
        for batch in batches:
            loss = student_loss(
                self.net(batch["image"].to(self.device)),
                batch["target"].to(self.device),
                self._weights(batch["confidence"]),
            )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            self.averaged.update_parameters(unwrapped(self.net))
            loss_sum, steps = loss_sum + loss.item(), steps + 1
        if not math.isfinite(loss_sum):
            raise JobError(
                f"the loss of epoch {self.epochs_done + 1} is {loss_sum}: train into a new output "
                "with a lower rate"
            )
        return Total(loss_sum, steps)

    def _weights(self, confidence: Tensor) -> Tensor:
        return (confidence.float() ** self.options.confidence_power).to(self.device)

    @torch.inference_mode()
    def validate(self, batches: Iterable[Batch]) -> Total:
        """Return the Dice with pseudo-labels of other images, summed over images and classes.

        It measures how far the student agrees with its teacher, not how good either is.
        """
        self.averaged.eval()
        total, count = 0.0, 0.0
        for batch in batches:
            logits = self.averaged(batch["image"].to(self.device))
            dice = hard_dice(logits, batch["target"].to(self.device))
            counted = dice[~dice.isnan()]
            total, count = total + counted.sum().item(), count + counted.numel()
        return Total(total, count)

    def close_epoch(self, loss: Total, val: Total) -> dict[str, float]:
        """Record the figures of an epoch, and save the weights if they are the best so far.

        Without validation images, the last weights count as the best.

        Args:
            loss: of all workers.
            val: the Dice of all workers.
        """
        self.epochs_done += 1
        if not val.count or val.mean >= self.best_dice:
            self.best_dice = val.mean if val.count else -math.inf
            weights = self.averaged.module.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        figures = {"epoch": self.epochs_done, "loss": loss.mean}
        if val.count:
            figures["val_dice"] = val.mean
        self.history.append(figures)
        return figures

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, as plain data and tensors."""
        return {
            "net": unwrapped(self.net).state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epochs_done": self.epochs_done,
            "best_dice": self.best_dice,
            "best": self.best,
            "history": self.history,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state`.

        Raises:
            ResumeError: the state has no averages: an older version made it.
        """
        if "averaged" not in state:
            raise ResumeError(
                "this training was started by an older version of salip-ray: complete it with that "
                "version, or train into a new output"
            )
        unwrapped(self.net).load_state_dict(state["net"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epochs_done, self.best_dice = state["epochs_done"], state["best_dice"]
        self.best, self.history = dict(state["best"]), list(state["history"])


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network inside the wrapper that lets several workers train it."""
    inner = getattr(net, "module", net)
    assert isinstance(inner, nn.Module)
    return inner


def _groups(net: nn.Module) -> list[dict[str, Any]]:
    """Return the optimiser's groups: the parameters of ``net.pretrained``, if any, and the rest.

    ``share`` is what a group gets of the learning rate.
    """
    encoder = getattr(unwrapped(net), "pretrained", None)
    pretrained = [] if encoder is None else list(encoder.parameters())
    ids = {id(parameter) for parameter in pretrained}
    rest = [parameter for parameter in net.parameters() if id(parameter) not in ids]
    groups = [
        {"params": rest, "share": 1.0},
        {"params": pretrained, "share": _PRETRAINED_SHARE},
    ]
    return [group for group in groups if group["params"]]


def _average(averaged: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
    """Return the running average of weights; a run's first steps count less and less."""
    return averaged + (now - averaged) * max(1 - _AVERAGING, 9 / (10 + int(steps)))


def _decay(done: float) -> float:
    """Return half a cosine: 1 at the start (0), 0 at the end (1)."""
    return 0.5 * (1 + math.cos(math.pi * done))
