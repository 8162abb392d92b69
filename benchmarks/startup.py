"""Seconds from a command to its first image: ``python -m benchmarks.startup``.

A job of one image (``salip-ray label``) and a cascade in one process, in new processes, with the
bundled models: seconds by step, and seconds of CPU of all processes together, which a busy machine
changes little. Then the imports of the command, of the job and of an actor, by package.

``--against FOLDER`` runs a second checkout in turns, to compare a change in pairs.
"""

from __future__ import annotations

import collections
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import cv2
import typer

from salip_ray.models.bundled.phantoms import make_phantom

_ROOT = Path(__file__).resolve().parents[1]
_IMPORTS = {
    "the command": "salip_ray.cli",
    "the driver of a job": "salip_ray.pipeline.job",
    "the monitor of a job": "salip_ray.pipeline.monitoring.monitor",
    "an actor without its models": "salip_ray.pipeline.actors",
    "the cascade, as in an actor": "salip_ray.cascade.cascade, salip_ray.cascade.loading",
}
_SUBREAPER = 36  # of prctl: processes whose parent ends become children of this one
_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.05
_LEAST_CPU = 0.2  # seconds; processes with less are not shown


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 3,
    against: Annotated[Path | None, typer.Option(help="Another checkout.")] = None,
) -> None:
    """Measure and print."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    checkouts = [_ROOT, *([against.resolve()] if against else [])]
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary, "phantom.png")
        cv2.imwrite(str(image), make_phantom("chest_xray", 0, bank="tune").image[:, :, ::-1])
        for kind in ("job", "cascade"):
            results = {root: list[dict[str, float]]() for root in checkouts}
            for number in range(rounds):
                for root in checkouts if number % 2 == 0 else reversed(checkouts):
                    output = [f"{temporary}/{root.name}-{number}"] if kind == "job" else []
                    results[root].append(started(root, kind, str(image), *output))
            for root, steps in results.items():
                show(f"{kind} in {root}", steps)
    for root in checkouts:
        print(f"\nimports in {root}: seconds of CPU, and the packages that take most")
        for name, modules in _IMPORTS.items():
            print(f"{name:30} {imported(root, modules)}")


def started(root: Path, *arguments: str) -> dict[str, float]:
    """Run ``startup_process`` of a checkout; return its steps, the whole, and seconds of CPU."""
    process_file = _ROOT / "benchmarks" / "startup_process.py"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(process_file), *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    cpu: dict[int, float] = {}
    names: dict[int, str] = {}
    while process.poll() is None:
        cpu |= (sampled := cpu_of_children(os.getpid()))
        names |= {pid: name for pid in sampled if (name := name_of(pid))}
        time.sleep(_SAMPLE_SECONDS)
    seconds = time.perf_counter() - began
    # Processes of Ray end a little later; those that ended without a parent are reaped here.
    while remaining := cpu_of_children(os.getpid()):
        cpu |= remaining
        _reap()
        time.sleep(_SAMPLE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} failed with status {process.returncode}")
    assert process.stdout is not None
    steps: dict[str, float] = json.loads(process.stdout.read().splitlines()[-1])
    kinds: collections.Counter[str] = collections.Counter()
    for pid, spent in cpu.items():
        kinds[names.get(pid, "short-lived")] += spent
    by_kind = {f"  {name}": spent for name, spent in kinds.most_common() if spent >= _LEAST_CPU}
    return {**steps, "whole": seconds, "CPU of all processes": sum(cpu.values()), **by_kind}


def name_of(pid: int) -> str:
    """Return what a process runs: the title of a worker of Ray, or the name of a program."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:  # it has just ended
        return ""
    first = words[0].decode(errors="replace")
    if first.startswith("ray::"):
        return first.partition("(")[0].strip()
    scripts = [Path(word.decode(errors="replace")).name for word in words[:4]]
    return next((name for name in scripts if name.endswith(".py")), scripts[0])


def cpu_of_children(parent: int) -> dict[int, float]:
    """Return user and system seconds of the processes below one, by process id."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            text = Path(entry.path, "stat").read_text()
        except OSError:  # it has just ended
            continue
        # The name in parentheses may hold spaces.
        fields = text.rpartition(")")[2].split()
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        if fields[0] != "Z":
            spent[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    below, added = {parent}, True
    while added:
        fresh = {pid for pid, above in parents.items() if above in below} - below
        below, added = below | fresh, bool(fresh)
    return {pid: spent[pid] for pid in below - {parent} if pid in spent}


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def show(title: str, runs: list[dict[str, float]]) -> None:
    """Print the median and the range of each step."""
    print(f"\n{title}: seconds, median (least to most); the first run may read from a cold disk")
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run.get(name, 0.0) for run in runs]
        spread = f"({min(values):.2f} to {max(values):.2f})"
        print(f"{name:30} {statistics.median(values):8.2f} {spread}")


def imported(root: Path, modules: str) -> str:
    """Import modules in a new process; return seconds of CPU, and the largest packages."""
    code = f"import {modules}, time; print(time.process_time())"
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    packages: collections.Counter[str] = collections.Counter()
    for line in process.stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if own.strip().isdigit():
            name = rest.rpartition("|")[2].strip()
            packages[name.partition(".")[0]] += int(own)
    most = ", ".join(f"{name} {own / 1e6:.1f}" for name, own in packages.most_common(6))
    return f"{float(process.stdout):6.2f}   {most}"


if __name__ == "__main__":
    typer.run(main)
