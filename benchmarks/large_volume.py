"""How much memory a large volume takes while it streams: ``make formats``.

    python -m benchmarks.large_volume --slices 600 --side 512 --store 500
    python -m benchmarks.large_volume --slices 500 --slices 1000 --slices 2000 --long-side 128

A synthetic volume (315 MB unpacked by default) goes through the real job: its headers, one decode
task that holds it, its slices as rows of ``image.long_side`` 512, the bundled SAM on a grid of
2 x 2 points, and the commits. Prints the peaks of the object store, of the largest task (the one
that decodes), of the actors and of the driver, and fails where the store comes above its limit.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import cv2
import nibabel
import numpy as np
import ray
import typer

from benchmarks.pipeline import watched
from salip_ray import label, load_config
from salip_ray.models.bundled.phantoms import make_phantom

_SMALL = (
    "run.modes=[unprompted]",
    "propose.points_per_side=2",
    "run.rows_per_shard=64",
)


def write_volume(path: Path, side: int, slices: int) -> int:
    """Write slices of a head that moves from one to the next; returns the bytes of the file."""
    phantom = make_phantom("brain_mri", 0, bank="tune", size=side).image[..., 0]
    head = cv2.resize(phantom, (side, side)).astype(np.int16) * 7
    values = np.empty((side, side, slices), np.int16, order="F")
    for index in range(slices):
        values[:, :, index] = np.roll(head, index % (side // 8), axis=0) + index
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 1.0, 1.0])), path)
    return path.stat().st_size


def main(
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = Path(
        "bench-output/large-volume"
    ),
    slices: Annotated[list[int], typer.Option(min=1, help="Can be repeated.")] = [600],  # noqa: B006
    side: Annotated[int, typer.Option(min=16, help="Rows and columns of a slice.")] = 512,
    store: Annotated[int, typer.Option(min=100, help="Limit of the object store, MB.")] = 500,
    long_side: Annotated[int, typer.Option(min=16, help="Of working images.")] = 512,
) -> None:
    """Stream large volumes in sequence, and watch their memory."""
    for count in slices:
        stream(output, count, side, store, long_side)


def stream(output: Path, slices: int, side: int, store: int, long_side: int) -> None:
    """Label a volume, print its peaks, and exit if slices are lost or the store is too full."""
    shutil.rmtree(output, ignore_errors=True)
    size = write_volume(output / "in" / "volume.nii", side, slices)
    os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=store * 1_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        with watched() as peaks:
            began = time.perf_counter()
            config = load_config("brain", overrides=[*_SMALL, f"image.long_side={long_side}"])
            summary = label(output / "in", output / "out", config, quiet=True)
            wall = time.perf_counter() - began
    finally:
        ray.shutdown()
    peak = peaks["store_bytes"] / 1e6
    through = slices * config.image.long_side**2 * 3 / 1e6
    print(
        f"{side} x {side} x {slices} voxels, {size / 1e6:.0f} MB: {summary.images} slices "
        f"({summary.status}) in {wall:.0f} s; object store: {peak:.0f} MB at most of {store} MB, "
        f"{through:.0f} MB of working images passed through it; largest task "
        f"{peaks['task_bytes'] / 1e6:.0f} MB, actors {peaks['worker_bytes'] / 1e6:.0f} MB, driver "
        f"{peaks['driver_bytes'] / 1e6:.0f} MB",
        flush=True,
    )
    if summary.images != slices or peak > store:
        sys.exit(f"large_volume: {summary.images} of {slices} slices, {peak:.0f} of {store} MB")


if __name__ == "__main__":
    typer.run(main)
