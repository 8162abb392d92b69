"""The course of a training, epoch by epoch, as far as it needs no cluster.

A :class:`Course` is all that changes while a student learns. Its state after an epoch, and nothing
else, decides how it goes on: a run that was stopped ends as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salip_ray.student.loss import hard_dice, student_loss
from salip_ray.student.options import StudentOptions

Batch = Mapping[str, Tensor]  #: of :class:`salip_ray.student.samples.Example`, collated


@dataclass(frozen=True)
class Total:
    """A sum and how many it is of, so that workers can add theirs up."""

    sum: float = 0.0
    count: float = 0.0

    @property
    def mean(self) -> float:
        """NaN of nothing."""
        return self.sum / self.count if self.count else math.nan


class Course:
    """A net, its optimiser, and the best weights so far.

    Args:
        net: trained in place; on the device to use.
        options: rate, epochs and confidence_power are used.
        device: where batches go.
    """

    def __init__(self, net: nn.Module, options: StudentOptions, device: torch.device) -> None:
        self.net, self.options, self.device = net, options, device
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=1e-4)
        self.epochs_done = 0
        self.best_dice = -math.inf
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []

    def learn(self, batches: Iterable[Batch]) -> Total:
        """One epoch; returns the loss, summed over batches."""
        rate = self.options.rate * _falling(self.epochs_done / self.options.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.net.train()
        spent, steps = 0.0, 0
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
            spent, steps = spent + loss.item(), steps + 1
        return Total(spent, steps)

    def _weights(self, confidence: Tensor) -> Tensor:
        return (confidence.float() ** self.options.confidence_power).to(self.device)

    @torch.inference_mode()
    def validate(self, batches: Iterable[Batch]) -> Total:
        """Dice with the pseudo-labels of images that are not trained on, over images and classes.

        It says how far the student agrees with its teacher, not how good either is.
        """
        self.net.eval()
        total, count = 0.0, 0.0
        for batch in batches:
            logits = self.net(batch["image"].to(self.device))
            found = hard_dice(logits, batch["target"].to(self.device))
            counted = found[~found.isnan()]
            total, count = total + counted.sum().item(), count + counted.numel()
        return Total(total, count)

    def close_epoch(self, loss: Total, val: Total) -> dict[str, float]:
        """Note an epoch's figures, of all workers, and keep the weights if they are the best.

        Without validation the last ones count.
        """
        self.epochs_done += 1
        if not val.count or val.mean >= self.best_dice:
            self.best_dice = val.mean if val.count else -math.inf
            weights = unwrapped(self.net).state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        figures = {"epoch": self.epochs_done, "loss": loss.mean}
        if val.count:
            figures["val_dice"] = val.mean
        self.history.append(figures)
        return figures

    def state(self) -> dict[str, Any]:
        """All that a run goes on from, as plain data and tensors."""
        return {
            "net": unwrapped(self.net).state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epochs_done": self.epochs_done,
            "best_dice": self.best_dice,
            "best": self.best,
            "history": self.history,
        }

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Take up a state of :meth:`state`."""
        unwrapped(self.net).load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epochs_done, self.best_dice = state["epochs_done"], state["best_dice"]
        self.best, self.history = dict(state["best"]), list(state["history"])


def unwrapped(net: nn.Module) -> nn.Module:
    """The net within what lets several workers train it together."""
    inner = getattr(net, "module", net)
    assert isinstance(inner, nn.Module)
    return inner


def _falling(done: float) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * done))
