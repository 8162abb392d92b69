"""Kill a job over many small images at random moments, go on, and count: ``make resume``.

10,000 images of 64 px are labelled with a grid of 2x2 points: every line of the job's code, for a
fraction of its time. The driver is killed (SIGKILL) at random moments of its run, and the same
command started again, until it ends by itself. Then every image of the manifest must have exactly
one row. A log line for each kill says how many shards were committed before it; ``resume.json``
keeps the counts. Run again with the same ``--output``, it begins anew.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer
from PIL import Image

from salip_ray.models.bundled.phantoms import KINDS, make_phantom

PROJECT = Path(__file__).resolve().parents[1]
_DRAWN = 30  # phantoms; the rest are pieces of them
_SIDE = 64
_SMALL = (
    f"image.long_side={_SIDE}",
    "propose.points_per_side=2",
    "propose.pred_iou_thresh=0",
    "propose.stability_score_thresh=0",
)


def draw_images(folder: Path, count: int, rng: random.Random) -> None:
    """Write ``count`` different PNGs: pieces of phantoms of the tune bank."""
    folder.mkdir(parents=True)
    phantoms = [
        make_phantom(KINDS[index % len(KINDS)], index, bank="tune").image for index in range(_DRAWN)
    ]
    for index in range(count):
        phantom = phantoms[rng.randrange(_DRAWN)]
        y, x = (rng.randrange(side - _SIDE + 1) for side in phantom.shape[:2])
        piece = phantom[y : y + _SIDE, x : x + _SIDE].astype(np.int16) + rng.randrange(-20, 21)
        Image.fromarray(piece.clip(0, 255).astype(np.uint8)).save(folder / f"{index:06d}.png")


def committed(labels: Path) -> int:
    """How many shards an output has."""
    return len(list(labels.glob("shards/part-*.parquet")))


def start(images: Path, labels: Path, rows_per_shard: int, log: Path) -> subprocess.Popen[bytes]:
    """Start the job as a person would, in a separate process group."""
    settings = [*_SMALL, f"run.rows_per_shard={rows_per_shard}"]
    command = [sys.executable, "-m", "salip_ray", "label", str(images), str(labels)]
    command += ["--config", "lungs", *(part for s in settings for part in ("--set", s))]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)


def kill_at_random(
    job: subprocess.Popen[bytes], labels: Path, shards: int, rng: random.Random
) -> int | None:
    """SIGKILL the driver some seconds after its next commit; the shards there were, or None."""
    before = committed(labels)
    goal = before + rng.randrange(1, max(2, (shards - before) // 3))
    while job.poll() is None and committed(labels) < goal:
        time.sleep(0.05)
    time.sleep(rng.uniform(0.0, 2.0))
    if job.poll() is not None:
        return None
    done = committed(labels)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    return done


def count(labels: Path) -> dict[str, int]:
    """Rows lost and rows twice, and files that are neither the job's nor whole."""
    manifest = pq.read_table(labels / "manifest.parquet")["image_id"].to_pylist()
    rows: Counter[str] = Counter()
    for shard in sorted(labels.glob("shards/*.parquet")):
        rows.update(pq.read_table(shard, columns=["image_id"])["image_id"].to_pylist())
    return {
        "images": len(manifest),
        "rows": rows.total(),
        "rows_lost": len(set(manifest) - rows.keys()),
        "rows_twice": sum(n - 1 for n in rows.values()),
        "rows_unknown": len(rows.keys() - set(manifest)),
        "temporary_files": sum(".tmp" in path.name for path in labels.rglob("*")),
    }


def main(
    images: Annotated[int, typer.Option(min=100, help="How many images.")] = 10_000,
    kills: Annotated[int, typer.Option(min=0, help="How often the driver is killed.")] = 3,
    rows_per_shard: Annotated[int, typer.Option(min=1)] = 250,
    seed: Annotated[int, typer.Option(help="Of images and moments.")] = 0,
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = PROJECT
    / "bench-output"
    / "resume",
) -> None:
    """Label, kill, go on, count."""
    rng = random.Random(seed)
    shutil.rmtree(output, ignore_errors=True)
    inputs, labels, log = output / "images", output / "labels", output / "job.log"
    draw_images(inputs, images, rng)
    shards = -(-images // rows_per_shard)
    began, killed = time.monotonic(), []
    while True:
        job = start(inputs, labels, rows_per_shard, log)
        done = kill_at_random(job, labels, shards, rng) if len(killed) < kills else None
        if done is not None:
            killed.append(done)
            typer.echo(f"kill {len(killed)}: {done} of {shards} shards were committed before it")
            continue
        if job.wait() != 0:
            sys.exit(f"the job failed with {job.returncode}: see {log}")
        break
    results: dict[str, Any] = {
        **count(labels),
        "kills": len(killed),
        "shards": shards,
        "shards_before_each_kill": killed,
        "seconds": round(time.monotonic() - began, 1),
    }
    (output / "resume.json").write_text(json.dumps(results, indent=2) + "\n")
    typer.echo(json.dumps(results, indent=2))
    if len(killed) < kills:
        sys.exit(f"the job ended before it was killed {kills} times: give more --images")
    if (
        results["rows"] != images
        or results["rows_lost"]
        or results["rows_twice"]
        or results["temporary_files"]
    ):
        sys.exit("the output is wrong: every image must have exactly one row")


if __name__ == "__main__":
    typer.run(main)
