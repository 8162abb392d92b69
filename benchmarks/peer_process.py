"""One candidate of ``benchmarks.peers`` in a new process, which prints one line of JSON.

The allocator of a process takes its settings from the environment when the process starts.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.peer_candidates import named


def main(
    candidate: Annotated[str, typer.Option()],
    work: Annotated[str, typer.Option()],
    folder: Annotated[Path, typer.Option(help="Of the prepared work.")],
    threads: Annotated[int, typer.Option()],
    repeats: Annotated[int, typer.Option(help="Timed runs after the first.")],
    output: Annotated[Path | None, typer.Option(help="Where the result is written.")] = None,
) -> None:
    """Do the work once untimed, then ``repeats`` times; print the seconds of each."""
    torch.set_num_threads(threads)
    chosen = named(candidate, work)
    run = chosen.load(work, folder)
    image = np.load(folder / "image.npy")
    result = run(image)
    if output is not None:
        result.save(output)
    seconds, cpu = [], []
    for _ in range(repeats):
        began, began_cpu = time.perf_counter(), time.process_time()
        run(image)
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}))


if __name__ == "__main__":
    typer.run(main)
