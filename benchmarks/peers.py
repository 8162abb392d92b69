"""The same work with other packages and with ours: ``make bench-peers``.

    python -m benchmarks.peers

Proposals of one image of 1024 pixels from 64 points, with the same seeded random weights in every
package (``vit_b``, ``sam2``), with the bundled SAM, and the whole cascade with ViT-B and CLIP B/32
or L/14. Every candidate runs in a new process, with the allocator as it comes and with the setting
that workers of a job have; rounds take turns. Before anything is timed, the masks are compared with
those of the official package: same number, and IoU with the mask that is most alike. A candidate
that differs is marked in the table. Run it on a machine that does nothing else.

Packages that are not dependencies are used if the interpreter finds them: ``sam2``, ``mobile_sam``
(``mobilesam-mirror``) and ``micro_sam``. ``--work tiny --rounds 1`` tries the script in a minute.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.bench import RESULTS
from benchmarks.measure import machine
from benchmarks.peer_candidates import Candidate, of_work
from benchmarks.peer_output import Agreement, Output, agreement
from benchmarks.peer_work import CASCADES, PROPOSALS, prepare

WORKS = ("vit_b", "bundled", "sam2", "cascade-b32", "cascade-l14")
_LARGE = 2**34
#: What ``salip_ray.pipeline.workers.memory`` sets in a worker, for a process that starts.
ALLOCATORS = {
    "as it comes": "",
    "retained": f"glibc.malloc.mmap_threshold={_LARGE}:glibc.malloc.trim_threshold={_LARGE}"
    ":glibc.malloc.arena_max=1",
}
_COLUMNS = (
    *("work", "package", "allocator", "masks: number, least IoU", "s per image (range)"),
    *("CPU s", "peak, GB", "times as fast as the first row (range)", "same allocator"),
)


@dataclass
class Row:
    """A candidate with one setting of the allocator.

    Attributes:
        work: its name.
        candidate: the package.
        allocator: one of ``ALLOCATORS``.
        agreement: with the reference; None before it is compared.
        seconds, cpu_seconds: the median of each round.
        peak_bytes: the most of all rounds.
        error: why it did not run.
    """

    work: str
    candidate: Candidate
    allocator: str
    agreement: Agreement | None = None
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    error: str | None = None


def main(
    work: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(WORKS)}, tiny.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Processes of every candidate.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Timed images of a process.")] = 1,
    points: Annotated[int, typer.Option(min=2, help="Per side of the grid.")] = 8,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: every core.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of peers.json.")] = RESULTS,
) -> None:
    """Compare, measure, print and write."""
    wanted = work or list(WORKS)
    for name in wanted:
        if name not in (*PROPOSALS, *CASCADES):
            raise typer.BadParameter(f"{name} is none of {', '.join((*PROPOSALS, *CASCADES))}")
    threads = threads or len(os.sched_getaffinity(0))
    about = machine(torch.device("cpu")) | {"threads": threads}
    rows: list[Row] = []
    left_out: list[str] = []
    for name in wanted:
        missing = [c.name for c in of_work(name) if c.missing]
        left_out += [f"{name}: {package} is not installed" for package in missing]
        if name == "sam2" and "sam2" in missing:
            continue  # its weights come from the package
        rows += measured(name, rounds, repeats, points, threads)
    text = table(rows)
    print(text)
    for line in left_out:
        print(f"Left out: {line}.")
    output.mkdir(parents=True, exist_ok=True)
    versions = {row.candidate.package: row.candidate.version for row in rows}
    result = {
        "machine": about,
        "versions": versions,
        "points_per_side": points,
        "left_out": left_out,
        "rows": [as_json(row) for row in rows],
        "table": text.splitlines(),
    }
    (output / "peers.json").write_text(json.dumps(result, indent=2) + "\n")


def measured(work: str, rounds: int, repeats: int, points: int, threads: int) -> list[Row]:
    """Run the candidates of a work in turns; return a row for each and each allocator setting."""
    installed = [candidate for candidate in of_work(work) if not candidate.missing]
    rows = [Row(work, candidate, name) for candidate in installed for name in ALLOCATORS]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(work, folder, points)
        reference: Output | None = None
        for number in range(rounds):
            for row in rows if number % 2 == 0 else reversed(rows):
                if row.error is not None:
                    continue
                path = folder / "result.npz" if row.agreement is None else None
                figures = run(row, folder, threads, repeats, path)
                if figures is None:
                    continue
                if path is not None:
                    result = Output.load(path)
                    reference = reference or result
                    row.agreement = agreement(result, reference)
                row.seconds.append(statistics.median(figures["seconds"]))
                row.cpu_seconds.append(statistics.median(figures["cpu_seconds"]))
                row.peak_bytes = max(row.peak_bytes, figures["peak_bytes"])
                same = row.agreement.text(work in CASCADES) if row.agreement else ""
                report = (
                    f"round {number + 1}, {work}, {row.candidate.name}, {row.allocator}: {same}"
                )
                print(f"{report}; {row.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    return rows


def run(
    row: Row, folder: Path, threads: int, repeats: int, output: Path | None
) -> dict[str, Any] | None:
    """Run a candidate in a new process; return what it prints, or None and set ``row.error``."""
    command = [sys.executable, "-m", "benchmarks.peer_process"]
    options = {
        "--candidate": row.candidate.name,
        "--work": row.work,
        "--folder": folder,
        "--threads": threads,
        "--repeats": repeats,
        **({"--output": output} if output else {}),
    }
    for name, value in options.items():
        command += [name, str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment.pop("GLIBC_TUNABLES", None)
    if tunables := ALLOCATORS[row.allocator]:
        environment["GLIBC_TUNABLES"] = tunables
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = process.stdout.strip().splitlines()
    if process.returncode == 0 and lines:
        figures: dict[str, Any] = json.loads(lines[-1])
        return figures
    reasons = process.stderr.strip().splitlines()
    row.error = reasons[-1] if reasons else f"exit status {process.returncode}"
    print(f"{row.work}, {row.candidate.name} failed: {row.error}", file=sys.stderr, flush=True)
    return None


def table(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    for row in rows:
        package = f"{row.candidate.name} {row.candidate.version}"
        if row.error is not None or row.agreement is None:
            cells = [row.work, package, row.allocator, f"FAILED: {row.error}", *[""] * 5]
        else:
            cells = [
                *(row.work, package, row.allocator, row.agreement.text(row.work in CASCADES)),
                _spread(row.seconds),
                f"{statistics.median(row.cpu_seconds):.2f}",
                f"{row.peak_bytes / 1e9:.1f}",
                _spread(ratios_to(row, rows, "as it comes")),
                _spread(ratios_to(row, rows, row.allocator)),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios_to(row: Row, rows: list[Row], allocator: str) -> list[float]:
    """Return the reference's seconds over those of a row, round by round.

    The reference is the first candidate of the work, with the given allocator setting.
    """
    first = next(r for r in rows if r.work == row.work and r.allocator == allocator)
    return [a / b for a, b in zip(first.seconds, row.seconds, strict=False)]


def as_json(row: Row) -> dict[str, Any]:
    """Return a row for the file of results."""
    return {
        "work": row.work,
        "candidate": row.candidate.name,
        "allocator": row.allocator,
        "agrees": row.agreement.holds if row.agreement else None,
        "agreement": vars(row.agreement) if row.agreement else None,
        "seconds": row.seconds,
        "cpu_seconds": row.cpu_seconds,
        "peak_bytes": row.peak_bytes,
        "error": row.error,
    }


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    typer.run(main)
