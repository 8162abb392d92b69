"""The job on Ray against the same work in plain processes, and how it grows with its input."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

from benchmarks.ratios import images
from salip_ray import label, load_config


def write_images(folder: Path, count: int) -> list[Path]:
    """Phantoms as PNG files; of 32 pictures, written again under other names."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = [cv2.imencode(".png", image[:, :, ::-1])[1].tobytes() for image in images(32)]
    paths = [folder / f"{index:05d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(encoded[index % len(encoded)])
    return paths


def plain_rate(paths: Sequence[Path], processes: int) -> float:
    """Images/s of single-threaded processes that decode, label and pack, and share nothing."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    workers = [
        context.Process(target=_work, args=(list(paths[index::processes]), ready))
        for index in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait(timeout=300)  # a worker that broke down never comes
    began = time.perf_counter()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError("a plain worker broke down")
    return len(paths) / (time.perf_counter() - began)


def _work(paths: Sequence[Path], ready: Any) -> None:
    import torch

    from salip_ray.cascade.cascade import Cascade
    from salip_ray.output.cells import pack_masks
    from salip_ray.output.masks import encode_png, label_map
    from salip_ray.pipeline.workers.memory import keep_freed_memory
    from salip_ray.sources.decode import decode

    keep_freed_memory()
    torch.set_num_threads(1)
    config = load_config("lungs")
    cascade = Cascade(config, device="cpu")

    def one(path: Path) -> None:
        image = decode(path.read_bytes(), path.name, config.image)
        result = cascade(image)
        pack_masks(result.masks)
        encode_png(label_map(result.masks, result.height, result.width, n_classes=1))

    one(paths[0])
    ready.wait()
    for path in paths:
        one(path)


@contextmanager
def local_ray(cores: int) -> Iterator[None]:
    """Run Ray on this machine for the time of a block."""
    import ray

    os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=cores + 4,
        object_store_memory=2 * 1024**3,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


def beside_plain(folder: Path, rounds: int, cores: int) -> dict[str, Any]:
    """Steady images/s of the job and of plain processes, in turns, for the machine's speed drifts.

    The job's rate is that between a few images and 64 more, so that its start is left out.
    """
    few, more = 8, 64
    paths = write_images(folder / "plain", more)
    for count in (few, few + more):
        write_images(folder / f"paired-{count}", count)
    config = load_config("lungs", overrides=["run.rows_per_shard=64"])
    pairs = []
    with local_ray(cores):
        for turn in range(rounds):
            plain = plain_rate(paths, cores)
            walls = []
            for count in (few, few + more):
                began = time.perf_counter()
                label(folder / f"paired-{count}", folder / f"{turn}-{count}", config, quiet=True)
                walls.append(time.perf_counter() - began)
            pairs.append((plain, more / (walls[1] - walls[0])))
    return {
        "plain_rate": statistics.median(plain for plain, _ in pairs),
        "ray_rate": statistics.median(ray for _, ray in pairs),
        "overhead": statistics.median(1 - ray / plain for plain, ray in pairs),
        "pairs": pairs,
    }


def growth(folder: Path, small: int, factor: int, cores: int) -> dict[str, Any]:
    """Run the job on ``small`` images and on ``factor`` times as many, in one Ray session.

    Seconds of the difference are those of the steady state: start-up and models are in both.
    """
    with local_ray(cores):
        runs = []
        for count in (small, small * factor // 2, small * factor):
            inputs = folder / f"in-{count}"
            write_images(inputs, count)
            config = load_config("lungs", overrides=["run.rows_per_shard=64"])
            with watched() as peaks:
                began = time.perf_counter()
                summary = label(inputs, folder / f"out-{count}", config, quiet=True)
                wall = time.perf_counter() - began
            stages = {name: spent.seconds for name, spent in summary.stages.items()}
            runs.append({"images": count, "wall_seconds": wall, "stages": stages, **peaks})
    first, middle, last = runs
    steady = (last["wall_seconds"] - first["wall_seconds"]) / (last["images"] - first["images"])
    early = (middle["wall_seconds"] - first["wall_seconds"]) / (middle["images"] - first["images"])
    late = (last["wall_seconds"] - middle["wall_seconds"]) / (last["images"] - middle["images"])
    return {
        "runs": runs,
        "seconds_per_image": steady,
        "late_over_early": late / early,
        "memory": last["worker_bytes"] / middle["worker_bytes"],
        "object_store": last["store_bytes"] / max(1.0, middle["store_bytes"]),
    }


_ACTOR = b"ray::MapWorker"


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Peaks within the block: private memory of processes, and bytes in the object store.

    ``worker_bytes`` is that of the actors, ``task_bytes`` that of the largest task (the commits
    included), ``driver_bytes`` that of this process.
    """
    import ray

    peaks = dict.fromkeys(("worker_bytes", "store_bytes", "task_bytes", "driver_bytes"), 0.0)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            has = ray.cluster_resources().get("object_store_memory", 0.0)
            free = ray.available_resources().get("object_store_memory", has)
            peaks["store_bytes"] = max(peaks["store_bytes"], has - free)
            private = _private_bytes()
            tasks = [size for name, size in private if not name.startswith(_ACTOR)]
            actors = sum(size for name, size in private if name.startswith(_ACTOR))
            peaks["worker_bytes"] = max(peaks["worker_bytes"], actors)
            peaks["task_bytes"] = max(peaks["task_bytes"], *tasks, 0.0)
            own = _rss_anon(Path("/proc/self"))
            peaks["driver_bytes"] = max(peaks["driver_bytes"], own)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def _private_bytes() -> list[tuple[bytes, float]]:
    """Return name and private memory of each process of Ray's that works or has worked."""
    private = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes()
            if name.startswith(b"ray::"):
                private.append((name, _rss_anon(process)))
        except OSError:
            continue  # it ended meanwhile
    return private


def _rss_anon(process: Path) -> float:
    status = (process / "status").read_text().splitlines()
    return sum(1024.0 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))
