"""Stages in one pool of actors or in three, and a trace of three at work.

    python -m benchmarks.pools

The same job runs with ``pools.fused`` true and false, in turns, on few and on many images: the
difference of the two is the steady state, the few images are mostly the start. Then Ray's own
timeline of a job with three pools is drawn, an actor a lane, and counted: for how much of the time
were several stages at work at once? Writes ``benchmarks/results/pools.json`` and ``-trace.svg``.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.bench import RESULTS
from benchmarks.measure import machine
from benchmarks.pipeline import local_ray, write_images
from benchmarks.plots import Bar, lane_plot
from salip_ray import label, load_config

OPERATORS = ("fetch_and_decode", "Propose", "Retrieve", "Refine", "Write")


def main(
    few: Annotated[int, typer.Option(min=1)] = 8,
    many: Annotated[int, typer.Option(min=2)] = 56,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of the two layouts.")] = 3,
    output: Annotated[Path, typer.Option(help="Where the results are written.")] = RESULTS,
) -> None:
    """Measure, print and write."""
    result: dict[str, Any] = {"machine": machine(torch.device("cpu"))}
    spent: dict[tuple[bool, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = {count: Path(folder, f"in-{count}") for count in (few, many)}
        for count, path in inputs.items():
            write_images(path, count)
        with local_ray(result["machine"]["cores"]):
            for turn in range(pairs):
                for fused in (True, False) if turn % 2 else (False, True):
                    for count, path in inputs.items():
                        seconds = run(path, Path(folder, f"{turn}-{fused}-{count}"), fused)
                        spent.setdefault((fused, count), []).append(seconds)
        with local_ray(result["machine"]["cores"]):
            run(inputs[many], Path(folder, "traced"), fused=False)
            bars = traced()
    for fused, name in ((True, "one pool"), (False, "three pools")):
        start, whole = (statistics.median(spent[fused, count]) for count in (few, many))
        rate = (many - few) / (whole - start)
        result[name] = {"images_per_s": rate, "seconds_of_few": start, "seconds_of_many": whole}
        print(f"{name}: {rate:.2f} images/s, {few} images in {start:.1f} s, {many} in {whole:.1f}")
    result["overlap"] = overlap(bars)
    print(f"three pools: several stages at work for {result['overlap']:.0%} of the busy time")
    output.mkdir(parents=True, exist_ok=True)
    (output / "pools.json").write_text(json.dumps(result, indent=2) + "\n")
    lane_plot(bars, output / "pools-trace.svg")


def run(inputs: Path, output: Path, fused: bool) -> float:
    """Seconds of a job, its actors' start included."""
    settings = [f"pools.fused={str(fused).lower()}", "run.rows_per_shard=16"]
    config = load_config("lungs", overrides=settings)
    began = time.perf_counter()
    label(inputs, output, config, quiet=True)
    return time.perf_counter() - began


def traced() -> list[Bar]:
    """Return the tasks of the session so far, from Ray's timeline; starts in seconds."""
    import ray

    time.sleep(2)  # workers report what they did once a second
    bars = []
    for event in ray.timeline():
        task = event["cat"].removeprefix("task::")
        stage = next((stage for stage in OPERATORS if stage in task), None)
        if stage is None or task == event["cat"] or task.endswith(("__init__", "get_location")):
            continue
        lane = f"{event['pid']} {event['tid']}"
        bars.append(Bar(lane, stage, event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6))
    first = min(bar.start for bar in bars)
    return [Bar(b.lane, b.name, b.start - first, b.end - first) for b in bars]


def overlap(bars: Sequence[Bar]) -> float:
    """Of the time in which any stage works, the share in which two or more do."""
    edges = sorted({edge for bar in bars for edge in (bar.start, bar.end)})
    busy = several = 0.0
    for start, end in itertools.pairwise(edges):
        at_work = {bar.name for bar in bars if bar.start <= start and bar.end >= end}
        busy += (end - start) * bool(at_work)
        several += (end - start) * (len(at_work) > 1)
    return several / busy


if __name__ == "__main__":
    typer.run(main)
