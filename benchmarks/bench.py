"""All ratios that a machine without a GPU can say: ``make bench``.

Writes ``benchmarks/results/latest.json``, the same with all details under the day's date, and plots
of growth and stages. Run it on a machine that does nothing else: 10 to 20 minutes on two cores.
"""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import torch
import typer

from benchmarks import ratios
from benchmarks.measure import machine
from benchmarks.pipeline import beside_plain, growth
from benchmarks.plots import growth_plot, stage_plot
from salip_ray.config import load_config
from salip_ray.pipeline.workers.memory import keep_freed_memory
from salip_ray.planning.profile import measure
from salip_ray.planning.sizing import size

RESULTS = Path(__file__).parent / "results"
TARGETS: dict[str, tuple[float, str]] = {
    "end_to_end": (2.0, "x"),
    "encoder_efficiency": (0.70, "of peak"),
    "floor_over_wall": (0.60, "of wall"),
    "ray_overhead": (0.05, "of throughput, at most"),
    "device_busy": (0.95, "of time"),
    "decode_ratio": (3.0, "x"),
    "glue_share": (0.05, "of wall, at most"),
    "parity": (1.0, "of images"),
    "growth": (1.1, "x the early seconds per image, at most"),
}


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of each comparison.")] = 8,
    job_images: Annotated[int, typer.Option(min=2, help="Images of the small job.")] = 16,
    vit_b: Annotated[int, typer.Option(help="Images of ViT-B; 0 leaves it out.")] = 2,
    jobs: Annotated[bool, typer.Option(help="Measure the job on Ray as well.")] = True,
    output: Annotated[Path, typer.Option(help="Where the results are written.")] = RESULTS,
) -> None:
    """Measure, print and write."""
    began = time.perf_counter()
    device = torch.device("cpu")
    result: dict[str, Any] = {"machine": machine(device)}
    torch.set_num_threads(result["machine"]["cores"])
    # First the allocator as it comes, as both are found in a plain Python process.
    small = ratios.bundled(pairs)
    small.ours(small.images[0]), small.official(small.images[0])
    result["end_to_end_as_it_comes"] = _report(
        "as it comes", ratios.end_to_end(small, max(3, pairs // 2))
    )
    # Then with what a worker of the job sets; the baseline gets it as well.
    result["kept_memory"] = keep_freed_memory()
    result["bundled"] = {
        "end_to_end": _report("end to end", ratios.end_to_end(small, pairs)),
        "encoder": _report("encoder", ratios.encoder_efficiency(small, pairs)),
        "decode": _report("decoder", ratios.decode_ratio(small, max(1, pairs // 2))),
        "shares": _report("shares", ratios.shares(small)),
    }
    if jobs:
        result["job"] = _report("job", job(job_images, result["machine"]["cores"]))
    if vit_b:
        result["vit_b"] = _report("vit_b", big(vit_b))
    result["seconds"] = time.perf_counter() - began
    metrics = summarised(result)
    write(output, metrics, result)
    for name, row in metrics.items():
        value = "-" if row["value"] is None else f"{row['value']:.3g}"
        print(f"{name:20} {value:>8}   target {row['target']:g} {row['unit']}")


def job(count: int, cores: int) -> dict[str, Any]:
    """Run the job on Ray, and the same work in plain processes; add what ``plan`` predicts."""
    with tempfile.TemporaryDirectory() as folder:
        beside = beside_plain(Path(folder), 4, cores)
        grown = growth(Path(folder), count, 10, cores)
        # Of other pictures than the job's: every phantom is one of the first 32.
        others = Path(folder, "others")
        others.mkdir()
        for index, image in enumerate(ratios.images(44)[36:]):
            cv2.imwrite(str(others / f"{index}.png"), image[:, :, ::-1])
        profile = measure(str(others), load_config("lungs"), images=8)
    rate = beside["ray_rate"]
    predicted = size(profile, images=1000, cores=cores).images_per_second
    return {
        **beside,
        "planned_rate": predicted,
        "planned_over_real": predicted / rate,
        "profile": profile.seconds,
        "growth": grown,
    }


def big(count: int) -> dict[str, Any]:
    """ViT-B and CLIP B/32 with random weights: 64 points, no crop layers."""
    setup = ratios.official_size(
        "vit_b", "ViT-B-32-quickgelu", {"points_per_side": 8}, count, "exact", "cpu"
    )
    return {
        "end_to_end": ratios.end_to_end(setup, count),
        "encoder": ratios.encoder_efficiency(setup, 3),
        "decode": ratios.decode_ratio(setup, 1),
        "shares": ratios.shares(setup),
    }


def summarised(result: dict[str, Any]) -> dict[str, Any]:
    """Return the nine metrics, each next to its target; None if not measured."""
    small, large, on_ray = result["bundled"], result.get("vit_b"), result.get("job")
    # The job against the serial loop, as each is run: all cores, whatever they are spent on.
    serial = small["end_to_end"]["official_seconds"]
    values: dict[str, float | None] = {
        "end_to_end": serial * on_ray["ray_rate"] if on_ray else small["end_to_end"]["ratio"],
        "encoder_efficiency": large["encoder"]["efficiency"] if large else None,
        "floor_over_wall": large["shares"]["floor_over_wall"] if large else None,
        "ray_overhead": on_ray["overhead"] if on_ray else None,
        "device_busy": None,
        "decode_ratio": small["decode"]["ratio"],
        "glue_share": small["shares"]["glue"],
        "parity": small["end_to_end"]["parity"],
        "growth": on_ray["growth"]["late_over_early"] if on_ray else None,
    }
    return {
        name: {"value": values[name], "target": target, "unit": unit}
        for name, (target, unit) in TARGETS.items()
    }


def write(output: Path, metrics: dict[str, Any], result: dict[str, Any]) -> None:
    """``latest.json``, the dated details, and the plots."""
    output.mkdir(parents=True, exist_ok=True)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    (output / "latest.json").write_text(json.dumps({"metrics": metrics}, indent=2) + "\n")
    dated = {"metrics": metrics, **result}
    (output / f"{day}-cpu.json").write_text(json.dumps(dated, indent=2, default=float) + "\n")
    if "job" in result:
        runs = result["job"]["growth"]["runs"]
        growth_plot(runs, output / f"{day}-growth.svg")
        stage_plot(runs[-1]["stages"], output / f"{day}-stages.svg")


def _report(what: str, results: dict[str, Any]) -> dict[str, Any]:
    print(f"{what}: {json.dumps(results, default=float)}", file=sys.stderr, flush=True)
    return results


if __name__ == "__main__":
    typer.run(main)
