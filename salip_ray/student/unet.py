"""The student's network: a small residual U-Net of plain torch layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 5
"""Resolutions of the network; each of the four steps between them halves height and width."""


def make_net(n_classes: int, width: int) -> nn.Module:
    """Return a U-Net from float [n, 3, h, w] to logits [n, 1 + n_classes, h, w].

    ``width`` is the number of channels at full resolution; each lower one has twice as many.
    Heights and widths must be multiples of 16.
    """
    channels = [width * 2**level for level in range(LEVELS)]
    net: nn.Module = ResidualUnit(channels[-2], channels[-1])  # the lowest resolution
    inner = channels[-1]
    for level in reversed(range(LEVELS - 1)):
        top = level == 0
        net = _Level(
            down=ResidualUnit(3 if top else channels[level - 1], channels[level], stride=2),
            inner=net,
            up=_up(channels[level] + inner, 1 + n_classes if top else channels[level - 1], top),
        )
        inner = channels[level - 1]
    return net


class _Level(nn.Module):
    """One resolution: encode, pass on to the lower ones, join both, decode."""

    def __init__(self, down: nn.Module, inner: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.down, self.inner, self.up = down, inner, up

    def forward(self, x: Tensor) -> Tensor:
        """Return ``up`` of the encoded input and what the lower resolutions make of it."""
        encoded = self.down(x)
        decoded: Tensor = self.up(torch.cat([encoded, self.inner(encoded)], dim=1))
        return decoded


class ResidualUnit(nn.Module):
    """Convolutions with a shortcut around them.

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        stride: of the first convolution.
        n_convolutions: how many there are.
        plain_end: leave out normalisation and activation after the last convolution.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        stride: int = 1,
        n_convolutions: int = 2,
        *,
        plain_end: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(n_convolutions):
            first = number == 0
            layers.append(
                nn.Conv2d(n_in if first else n_out, n_out, 3, stride if first else 1, padding=1)
            )
            if not (plain_end and number == n_convolutions - 1):
                layers += [nn.InstanceNorm2d(n_out), nn.PReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Conv2d(n_in, n_out, 3, stride, padding=1)
        elif n_in != n_out:
            self.shortcut = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths."""
        total: Tensor = self.convolutions(x) + self.shortcut(x)
        return total


def _up(n_in: int, n_out: int, top: bool) -> nn.Module:
    # Instance normalisation needs no large batches.
    return nn.Sequential(
        nn.ConvTranspose2d(n_in, n_out, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(n_out),
        nn.PReLU(),
        ResidualUnit(n_out, n_out, n_convolutions=1, plain_end=top),
    )
