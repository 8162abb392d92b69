"""How many fetch tasks keep the models busy: ``python -m benchmarks.feed --rate 40``.

Phantoms of 1024 pixels come from an HTTP server on this machine that waits before it answers, 50 ms
by default, as a distant store does. 1, 4 and 16 processes run the fetch task of a job (fetch,
decode, resize), each on as many images. Prints the images/s that they deliver, the share of time
that models wait which take ``--rate`` images/s, and the seconds of CPU of an image: its product
with the rate is the number of cores that a node needs for fetching.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import cv2
import pyarrow as pa
import pyarrow.csv
import typer

from salip_ray.config import Config, load_config
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.pipeline.decoding.decode import fetch_and_decode
from salip_ray.pipeline.inputs import list_input
from salip_ray.pipeline.monitoring.monitor import StageReporter

_PHANTOMS = 8  # different pictures; more files are copies
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Feed:
    """What some fetch tasks deliver.

    Attributes:
        tasks: number of processes.
        images: of all tasks.
        seconds: until the last task is done.
        cpu_seconds: of all tasks.
    """

    tasks: int
    images: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    def waiting(self, rate: float) -> float:
        """Return the share of time that models wait which take ``rate`` images/s."""
        return max(0.0, 1 - self.rate / rate)

    def cores(self, rate: float) -> float:
        """Return the cores that ``rate`` images/s keep busy."""
        return rate * self.cpu_seconds / self.images


def main(
    rate: Annotated[float, typer.Option(min=0.01, help="Images/s that the models take.")],
    latency: Annotated[float, typer.Option(min=0, help="Milliseconds before an answer.")] = 50.0,
    tasks: Annotated[list[int] | None, typer.Option(help="Default: 1, 4 and 16.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Of each task.")] = 32,
    side: Annotated[int, typer.Option(min=64, help="Pixels of an image.")] = 1024,
) -> None:
    """Measure and print."""
    counts = tasks or [1, 4, 16]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = store(folder, max(counts) * images, side)
        print("| fetch tasks | images/s | models wait | CPU s per image | cores for the rate |")
        print("| --- | --- | --- | --- | --- |")
        with delayed_server(folder, latency / 1000) as address:
            for count in counts:
                result = feed([f"{address}/{name}" for name in names[: count * images]], count)
                print(
                    f"| {count} | {result.rate:.1f} | {result.waiting(rate):.0%} "
                    f"| {result.cpu_seconds / result.images:.3f} | {result.cores(rate):.1f} |"
                )


def store(folder: Path, count: int, side: int) -> list[str]:
    """Write PNG files of phantoms; return their names."""
    for index in range(min(count, _PHANTOMS)):
        image = make_phantom("chest_xray", index, bank="tune").image
        cv2.imwrite(str(folder / f"{index:05d}.png"), cv2.resize(image, (side, side)))
    for index in range(_PHANTOMS, count):
        (folder / f"{index:05d}.png").hardlink_to(folder / f"{index % _PHANTOMS:05d}.png")
    return [f"{index:05d}.png" for index in range(count)]


class _Delayed(SimpleHTTPRequestHandler):
    """Serve files, some time after they are requested."""

    def __init__(self, *args: Any, latency: float, **kwargs: Any) -> None:
        self._latency = latency
        super().__init__(*args, **kwargs)

    def send_head(self) -> Any:
        time.sleep(self._latency)
        return super().send_head()

    def log_message(self, *_: Any) -> None:
        """Write no line per request."""


@contextmanager
def delayed_server(folder: Path, latency: float) -> Iterator[str]:
    """Serve a folder on this machine; yield its address.

    Args:
        folder: what to serve.
        latency: seconds before each answer.
    """
    handler = partial(_Delayed, directory=str(folder), latency=latency)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def feed(uris: Sequence[str], tasks: int) -> Feed:
    """Fetch and decode images in ``tasks`` processes, which begin together.

    Raises:
        RuntimeError: an image could not be read, or a process ended.
    """
    config = load_config("lungs")
    with tempfile.TemporaryDirectory() as temporary:
        manifest = Path(temporary, "manifest.csv")
        pyarrow.csv.write_csv(pa.table({"uri": list(uris)}), manifest)
        rows = list_input(str(manifest), config).manifest.table
    context = multiprocessing.get_context("spawn")
    size = -(-rows.num_rows // tasks)
    starts = range(0, rows.num_rows, size)
    barrier, results = context.Barrier(len(starts) + 1), context.SimpleQueue()
    processes = [
        context.Process(
            target=_task, args=(rows.slice(start, size), config, barrier, results), daemon=True
        )
        for start in starts
    ]
    for process in processes:
        process.start()
    # If a task fails, the others end with it, and their exit status says so.
    with suppress(threading.BrokenBarrierError):
        barrier.wait(_START_SECONDS)
    began = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - began
    if any(process.exitcode for process in processes):
        raise RuntimeError("a fetch task failed: its traceback is above")
    cpu = [results.get() for _ in processes]
    return Feed(tasks, rows.num_rows, seconds, sum(cpu))


def _task(rows: pa.Table, config: Config, barrier: Any, results: Any) -> None:
    try:
        _fetch(rows.slice(0, 1), config)  # imports the client, and opens a connection
    except RuntimeError:
        barrier.abort()
        raise
    barrier.wait(_START_SECONDS)
    began = time.process_time()
    _fetch(rows, config)
    results.put(time.process_time() - began)


def _fetch(rows: pa.Table, config: Config) -> None:
    for table in fetch_and_decode(rows, config, None, StageReporter()):
        for status, error in zip(table["status"], table["error"], strict=True):
            if status.as_py() == "error":
                raise RuntimeError(error.as_py()["message"])


if __name__ == "__main__":
    typer.run(main)
