"""Mean of exported weights, such as those of two runs from the same weights.

    python -m training.averaging a/clip.safetensors b/clip.safetensors --out mean.safetensors

The shipped SAM is such a mean. Add --shares 7 13 to weight the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from salip_ray.errors import ConfigError, WeightsError


def average(files: Sequence[Path], shares: Sequence[float], out: Path) -> None:
    """Write the weighted mean of safetensors files, added in float32, with the first one's types.

    Raises:
        ConfigError: not every file has a share above 0.
        WeightsError: the files are not of one architecture, or differ in an integer tensor.
    """
    if len(shares) != len(files) or min(shares, default=0) <= 0:
        raise ConfigError(f"each of {len(files)} files needs a share above 0, found {shares}")
    states = [load_file(file) for file in files]
    with safe_open(files[0], "pt") as file:
        metadata = file.metadata()
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for file, other in zip(files, shapes, strict=True):
        if other != shapes[0]:
            raise WeightsError(f"{file} has other tensors than {files[0]}")
    mean = {}
    for name, first in states[0].items():
        tensors = [state[name] for state in states]
        if first.is_floating_point():
            parts = zip(shares, tensors, strict=True)
            total = torch.stack([share / sum(shares) * part.float() for share, part in parts])
            mean[name] = total.sum(dim=0).to(first.dtype)
        elif all(torch.equal(tensor, first) for tensor in tensors) or "num_batches" in name:
            mean[name] = first
        else:
            raise WeightsError(f"{name} is not the same in all files, and has no mean")
    save_file(mean, out, metadata=metadata)


def main() -> None:
    """Average the files of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="WEIGHTS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", help="of each file (default: equal)")
    arguments = parser.parse_args()
    average(arguments.files, arguments.shares or [1.0] * len(arguments.files), arguments.out)


if __name__ == "__main__":
    main()
