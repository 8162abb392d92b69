"""What the benchmarks share: the machine, its peak, pairs of timings, floating-point work."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_PACKAGES = ("torch", "torchvision", "ray", "segment-anything", "open-clip-torch", "numpy")


def machine(device: torch.device) -> dict[str, Any]:
    """Hardware and versions, for the head of a result."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; a clock read before it has finished says nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """How long a call takes."""
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def paired(
    one: Callable[[], Any], other: Callable[[], Any], device: torch.device, pairs: int
) -> tuple[float, float]:
    """Median seconds of two calls, run in turns so that a noisy machine is noisy to both.

    Both are called once before, unless there is one pair alone.
    """
    if pairs > 1:
        one(), other()
    times = [(seconds(one, device), seconds(other, device)) for _ in range(pairs)]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product here and now: the best of several."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    repeats = 8
    best = min(
        seconds(lambda: [torch.mm(a, b, out=out) for _ in range(repeats)], device) for _ in range(5)
    )
    return 2 * side**3 * repeats / best


def flops(work: Callable[[], Any]) -> float:
    """Floating-point operations of the matrix products and convolutions of a call."""
    # Compiled code would run past the counter.
    eager = torch.compiler.set_stance("force_eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad(), eager:
        work()
    return float(counter.get_total_flops())


@contextmanager
def clocked(owner: Any, name: str, spent: list[float], device: torch.device) -> Iterator[None]:
    """Within the block, time every call of a method of ``owner`` into ``spent``."""
    plain = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        synchronise(device)
        began = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            synchronise(device)
            spent.append(time.perf_counter() - began)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, plain)
