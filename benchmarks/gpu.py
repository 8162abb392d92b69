"""The GPU column, in one call: ``python -m benchmarks.gpu``.

ViT-H and ViT-B with CLIP ViT-L/14, random weights, 512 points in 5 views, about 50 crops: the fast
cascade against the serial loop in float32, and the bundled models for parity and labels. Writes
``benchmarks/results/DATE-gpu-fast.json``. ``--device cpu --model bundled --phantoms 2 --pairs 1``
tries the script out.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import ratios
from benchmarks.bench import RESULTS
from benchmarks.measure import machine

_PROPOSE = {"points_per_side": 16, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2}


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script.")] = "cuda",
    model: Annotated[list[str] | None, typer.Option(help="Of vit_h, vit_b, bundled.")] = None,
    pairs: Annotated[int, typer.Option(min=1)] = 5,
    phantoms: Annotated[int, typer.Option(min=1, help="For the bundled models.")] = 20,
    output: Annotated[Path, typer.Option()] = RESULTS,
) -> None:
    """Measure, print and write."""
    torch_device = torch.device(device)
    result: dict[str, Any] = {"machine": machine(torch_device)}
    for name in model or ["vit_h", "vit_b", "bundled"]:
        if name == "bundled":
            setup = ratios.bundled(phantoms, "fast", device)
        else:
            setup = ratios.official_size(
                name, "ViT-L-14-quickgelu", _PROPOSE, pairs, "fast", device
            )
        setup.ours(setup.images[0])  # compiles
        result[name] = {
            "end_to_end": ratios.end_to_end(setup, len(setup.images)),
            "encoder": ratios.encoder_efficiency(setup, pairs),
            "decode": ratios.decode_ratio(setup, pairs),
            "shares": ratios.shares(setup),
        }
        print(name, json.dumps(result[name], indent=2, default=float), flush=True)
    output.mkdir(parents=True, exist_ok=True)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = output / f"{day}-{torch_device.type if torch_device.type == 'cpu' else 'gpu'}-fast.json"
    path.write_text(json.dumps(result, indent=2, default=float) + "\n")


if __name__ == "__main__":
    typer.run(main)
