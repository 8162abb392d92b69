"""How far the design carries: the driver on millions of rows, local nodes, and a simulation.

    python benchmarks/scale.py driver --rows 10000000     # list, plan, freeze, check a resume
    python benchmarks/scale.py nodes                      # 1, 2, 4, 8 nodes of sleeping stages
    python benchmarks/scale.py simulate                   # where it saturates: docs/scale-*.svg

Each step writes its figures to ``bench-output/scale/`` and is not measured again while they are
there; ``--again`` does. (1 million rows through no-op stages: ``benchmarks/noop.py``.)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OUT = ROOT / "bench-output" / "scale"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def remembered(name: str, again: bool, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a measurement, taken now or earlier."""
    path = OUT / f"{name}.json"
    if again or not path.exists():
        figures = {**measure(), "load_average": os.getloadavg()[0], "cores": os.cpu_count()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")
    figures = json.loads(path.read_text())
    print(json.dumps({"measurement": name, **figures}))
    return figures


# -------------------------------------------------------------------------------------- driver


class Pages:
    """Answers like S3 to ListObjectsV2, a thousand keys a page, without a network."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def invalidate_cache(self) -> None:
        """Nothing is cached."""

    def isfile(self, _: str) -> bool:
        """No prefix is a file."""
        return False

    def call_s3(self, _: str, ContinuationToken: str = "0", **__: str) -> dict[str, Any]:  # noqa: N803
        """One page."""
        start = int(ContinuationToken)
        stop = min(self.rows, start + 1000)
        return {
            "Contents": [
                {
                    "Key": f"2024/chest-xray/study-{i // 4:010d}/{i:012d}.png",
                    "Size": 200_000 + i % 1000,
                    "ETag": f'"{i:032x}"',
                }
                for i in range(start, stop)
            ],
            "IsTruncated": stop < self.rows,
            "NextContinuationToken": str(stop),
        }


def run_driver(rows: int, folder: str, results: Any) -> None:
    """Run all that a driver does apart from the labelling, in a separate process."""
    from benchmarks.noop import peak_mib
    from salip_ray import load_config
    from salip_ray.output import job_record
    from salip_ray.output import manifest as plan
    from salip_ray.output.store import Store
    from salip_ray.pipeline import dataflow
    from salip_ray.sources import listing

    steps: dict[str, float] = {}
    peaks: dict[str, float] = {"imports": peak_mib()}
    began = time.perf_counter()

    def step(name: str) -> None:
        nonlocal began
        steps[name] = round(time.perf_counter() - began, 2)
        peaks[name] = round(peak_mib())
        began = time.perf_counter()

    listing.filesystem = lambda *_: (Pages(rows), "hospital-archive/2024")
    listed = listing.list_images("s3://hospital-archive/2024")
    step("list")
    made = plan.make_manifest(listed, 1024)
    step("plan")
    store = Store(folder)
    fingerprint = job_record.make_fingerprint(load_config("lungs").recipe(), {}, made, None)
    job_record.claim_or_resume_job(store, made, fingerprint)
    step("begin")
    shards = Path(folder, "shards")
    shards.mkdir(exist_ok=True)
    for shard in range(0, made.n_shards, 2):
        (shards / f"part-{shard:05d}.parquet").touch()
    began = time.perf_counter()
    job = job_record.claim_or_resume_job(store, made, fingerprint)
    todo = made.todo(job.committed)
    step("resume_check")
    starts = dataflow.block_starts(todo, 64)
    tasks = dataflow.ManifestSource(todo, starts).get_read_tasks(1)
    step("read_tasks")
    results.put(
        {
            "rows": rows,
            "shards": made.n_shards,
            "seconds": steps,
            "driver_peak_mib": peaks,
            "shards_per_second_resume_check": round(made.n_shards / steps["resume_check"]),
            "read_tasks": len(tasks),
            "manifest_mib": round(Path(folder, "manifest.parquet").stat().st_size / 2**20, 1),
        }
    )


@app.command()
def driver(
    rows: Annotated[int, typer.Option(help="Images of the made-up bucket.")] = 10_000_000,
    again: Annotated[bool, typer.Option("--again")] = False,
) -> None:
    """Measure the time and memory of the driver alone, for a job of so many images."""

    def measure() -> dict[str, Any]:
        folder = OUT / f"driver-{rows}"
        shutil.rmtree(folder, ignore_errors=True)
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=run_driver, args=(rows, str(folder), results))
        process.start()
        figures: dict[str, Any] = results.get()
        process.join()
        shutil.rmtree(folder)
        return figures

    remembered(f"driver-{rows}", again, measure)


# --------------------------------------------------------------------------------------- nodes


@app.command()
def nodes(
    counts: Annotated[str, typer.Option(help="How many nodes, with commas.")] = "1,2,4,8",
    rows_per_node: Annotated[int, typer.Option(help="Images for each node.")] = 400,
    sleep: Annotated[float, typer.Option(help="Seconds an image in PROPOSE.")] = 0.05,
    embedding: Annotated[int, typer.Option(help="Bytes from PROPOSE to REFINE.")] = 2 * 2**20,
    again: Annotated[bool, typer.Option("--again")] = False,
) -> None:
    """Rows/s of local Ray nodes, each with one actor of each stage; start-up is left out."""
    for count in (int(text) for text in counts.split(",")):
        remembered(
            f"nodes-{count}",
            again,
            lambda count=count: run_nodes(count, rows_per_node * count, sleep, embedding),
        )


def run_nodes(count: int, rows: int, sleep: float, embedding: int) -> dict[str, Any]:
    """One run on a cluster of so many nodes; steady rows/s is taken between commits."""
    from tests.ray_cluster import RayCluster

    output = OUT / f"labels-{count}"
    shutil.rmtree(output, ignore_errors=True)
    with RayCluster(cpus=0) as cluster:
        for _ in range(count):
            cluster.add_node(cpus=4, gpus=1)
        settings = [f"pools.{stage}.size={count}" for stage in ("propose", "retrieve", "refine")]
        settings += ["pools.propose.gpus=0.5", "pools.retrieve.gpus=0.25"]
        settings += ["pools.refine.gpus=0.25", "run.rows_per_shard=20"]
        settings += ["pools.wait.seconds=600", f"pools.wait.nodes={count + 1}"]
        command = [sys.executable, str(ROOT / "benchmarks" / "noop.py"), "--rows", str(rows)]
        command += ["--sleep", str(sleep), "--embedding", str(embedding), "--out", str(output)]
        command += [part for setting in settings for part in ("--set", setting)]
        environment = {**cluster.env, "RAY_ADDRESS": cluster.gcs_address}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise typer.Exit(print(done.stderr) or 1)
    times = sorted(path.stat().st_mtime for path in output.glob("shards/*.parquet"))
    # The pools fill in the first quarter, and run dry in the last.
    first, last = len(times) // 4, 3 * len(times) // 4
    steady = 20 * (last - first) / (times[last] - times[first])
    shutil.rmtree(output)
    return {
        "nodes": count,
        "rows": rows,
        "rows_per_second": round(steady, 2),
        "ideal_rows_per_second": count / sleep,
        "efficiency": round(steady * sleep / count, 3),
        "whole_run": json.loads(done.stdout.splitlines()[-1]),
    }


# ------------------------------------------------------------------------------------ simulation


@app.command()
def simulate(
    rates: Annotated[
        Path, typer.Option(help="Stage rates and costs: see benchmarks/scale-rates.json.")
    ] = ROOT / "benchmarks" / "scale-rates.json",
    out: Annotated[Path, typer.Option(help="Where the plots are written.")] = ROOT / "docs",
) -> None:
    """Images/s against GPUs for each setting in the file, and what holds it up."""
    from benchmarks.simulation import Setting, sweep
    from benchmarks.svg import line_plot

    given = json.loads(rates.read_text())
    lines: dict[str, list[tuple[float, float]]] = {}
    utilisation: dict[str, list[tuple[float, float]]] = {}
    for name, values in given["settings"].items():
        setting = Setting(**{**given["common"], **values})
        points = sweep(setting)
        for point in points:
            print(json.dumps({"simulated": name, **point}))
        lines[values.get("label", name)] = [
            (point["gpus"], point["images_per_second"]) for point in points
        ]
        if name == given["detail"]:
            for resource in points[0]["busy"]:
                utilisation[resource] = [(p["gpus"], 100 * p["busy"][resource]) for p in points]
    out.mkdir(parents=True, exist_ok=True)
    axes = {"x_label": "GPUs", "log_x": True}
    (out / "scale-throughput.svg").write_text(
        line_plot(lines, title="Images/s, simulated", y_label="images/s", log_y=True, **axes)
    )
    (out / "scale-busy.svg").write_text(
        line_plot(utilisation, title="How busy each part is, simulated", y_label="%", **axes)
    )


if __name__ == "__main__":
    app()
