"""The long chaos run: ``make chaos``. It stops after ``--minutes``; run it again to resume.

Writes into ``--output``: ``summary.json`` (the counts, and what was wrong: all of it must be 0),
``events.jsonl`` (each kill with its phase and the shards committed before it) and ``table.md``.
Exit with 1 if something was lost, doubled, different, left behind, unnoticed or crashed.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.chaos.attacks import alter_files, pause_drivers  # noqa: E402
from tests.chaos.fuzzing import fuzz  # noqa: E402
from tests.chaos.harness import Tally, draw_images, small_cluster  # noqa: E402
from tests.chaos.outputs import Damage  # noqa: E402
from tests.chaos.scenarios import (  # noqa: E402
    World,
    fail_store,
    kill_drivers,
    kill_workers,
    lose_nodes,
    plant_files,
)

TARGETS = {
    "driver_kills": 20,
    "worker_kills": 20,
    "node_losses": 5,
    "driver_pauses": 3,
    "planted_deaths": 15,
    "store_faults": 20,
    "altered_files": 100,
    "fuzzed": 10_000,
}
_IN_COMMIT = 8  # driver kills between the files of a commit, at least
_IMAGES = 40


def main(
    minutes: Annotated[float, typer.Option(help="After which this slice ends.")] = 55.0,
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = ROOT
    / "chaos-output",
    share: Annotated[float, typer.Option(help="Of the disturbances; 0.1 for a short run.")] = 1.0,
) -> None:
    """Disturb jobs until every disturbance has happened often enough."""
    targets = {what: math.ceil(share * count) for what, count in TARGETS.items()}
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    state = output / "state.json"
    tally = Tally.from_json(json.loads(state.read_text())) if state.exists() else Tally()
    began = time.monotonic()

    def out_of_time() -> bool:
        return time.monotonic() - began > minutes * 60

    def left(what: str) -> int:
        return max(0, targets[what] - tally.counts.get(what, 0))

    def save() -> None:
        partial = state.with_suffix(".tmp")
        partial.write_text(json.dumps(tally.to_json()))
        partial.replace(state)
        write_results(output, tally)

    def report(line: str) -> None:
        typer.echo(f"[{time.monotonic() - began:5.0f} s] {line}")
        save()

    if left("fuzzed"):
        seed = tally.counts.get("fuzzed", 0)
        fuzzed = fuzz(left("fuzzed"), seed, output / "fuzz", out_of_time=out_of_time)
        tally.count("fuzzed", fuzzed.files)
        tally.damage += Damage(crashes=len(fuzzed.faults))
        typer.echo(f"{dict(fuzzed.formats)}, at most {fuzzed.peak_mib:.0f} MiB")
        report(f"{fuzzed.files:,} files fuzzed, {len(fuzzed.faults)} faults {fuzzed.faults[:3]}")
    if any(left(what) for what in targets):
        images = draw_images(output / "images", _IMAGES)
        rng = random.Random(sum(tally.counts.values()))
        with small_cluster() as cluster:
            world = World(cluster, images, output, rng, report, out_of_time)
            report(f"undisturbed run: {world.undisturbed()}")
            cut = sum(e.what == "driver" and e.phase == "commit" for e in tally.events)
            disturbances = {
                "driver_kills": partial(
                    kill_drivers, in_commit=max(0, math.ceil(share * _IN_COMMIT) - cut)
                ),
                "worker_kills": kill_workers,
                "store_faults": fail_store,
                "node_losses": lose_nodes,
                "planted_deaths": plant_files,
                "driver_pauses": pause_drivers,
                "altered_files": alter_files,
            }
            # The rarest disturbance first, each with its share of the remaining time.
            waiting = [what for what in disturbances if left(what)]
            waiting.sort(key=lambda what: 1 - left(what) / targets[what])
            for number, what in enumerate(waiting):
                now = time.monotonic()
                until = now + (began + minutes * 60 - now) / (len(waiting) - number)
                world.out_of_time = partial(_is_over, until)
                if not world.out_of_time():
                    disturbances[what](world, left(what), tally)
    save()
    typer.echo((output / "table.md").read_text())
    if tally.damage.total:
        sys.exit(f"the job is not safe: {tally.damage}")
    if missing := {what: left(what) for what in targets if left(what)}:
        typer.echo(f"not yet done often enough, run it again: {missing}")


def _is_over(until: float) -> bool:
    return time.monotonic() > until


def write_results(output: Path, tally: Tally) -> None:
    """Write the counts, the log of events, and the table of the docs."""
    counts = {what: tally.counts.get(what, 0) for what in TARGETS}
    summary = {**counts, **asdict(tally.damage)}
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    lines = [json.dumps(asdict(event)) for event in tally.events]
    (output / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (output / "table.md").write_text(table(tally, counts))


def table(tally: Tally, counts: dict[str, int]) -> str:
    """Return a table of the disturbances, the times to recover, and the damage."""
    rows = [
        "| disturbance | times | seconds to the next commit, median (longest) |",
        "|---|---|---|",
    ]
    for what, label in (
        ("driver_kills", "driver"),
        ("worker_kills", "worker"),
        ("node_losses", "node"),
        ("driver_pauses", "pause"),
        ("store_faults", ""),
        ("planted_deaths", ""),
        ("altered_files", ""),
        ("fuzzed", ""),
    ):
        times = [
            event.recovery_seconds
            for event in tally.events
            if label and event.what.startswith(label) and event.recovery_seconds is not None
        ]
        took = f"{statistics.median(times):.0f} ({max(times):.0f})" if times else "-"
        rows.append(f"| {what.replace('_', ' ')} | {counts[what]:,} | {took} |")
    cut = sum(e.what == "driver" and e.phase == "commit" for e in tally.events)
    wrong = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in asdict(tally.damage).items())
    rows += ["", f"Driver kills inside a commit: {cut}. {wrong[:1].upper()}{wrong[1:]}.", ""]
    return "\n".join(rows)


if __name__ == "__main__":
    typer.run(main)
