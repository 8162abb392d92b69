"""The result of a reproduction: a table of means, and a CSV file with every figure behind it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from salip_ray.reproduction.scoring import Figure, Mean, mean_of

_UNPROMPTED = ("unprompted_confident", "unprompted_largest")
_ROWS = {"unprompted": "un-prompted SAM", "cascade": "SaLIP", "gt_sam": "GT-SAM"}
_SCORINGS = {"published": "published scoring", "ours": "our scoring"}
_RUNS = ("faithful", "ours")


@dataclass(frozen=True)
class Table:
    """Means by scoring, run and method.

    ``unprompted`` is the better of its two variants, chosen by the mean.
    """

    means: dict[tuple[str, str, str], Mean]

    @classmethod
    def of(cls, figures: Sequence[Figure]) -> Table:
        """Return the means of all figures."""
        grouped: dict[tuple[str, str, str], list[Figure]] = {}
        for figure in figures:
            grouped.setdefault((figure.scoring, figure.run, figure.method), []).append(figure)
        means = {key: mean_of(values) for key, values in grouped.items()}
        for scoring, run in {(key[0], key[1]) for key in means}:
            variants = [means[scoring, run, method] for method in _UNPROMPTED]
            means[scoring, run, "unprompted"] = max(variants, key=lambda mean: _last(mean.dice))
        return cls(means)

    def gain(self, scoring: str, run: str) -> float:
        """Return the points of Dice that the cascade gains over un-prompted SAM."""
        cascade, unprompted = (self.means[scoring, run, m] for m in ("cascade", "unprompted"))
        return 100 * (cascade.dice - unprompted.dice)


def markdown(title: str, gain: float, figures: Sequence[Figure], notes: Sequence[str]) -> str:
    """Return the table as Markdown.

    Args:
        title: the heading.
        gain: points of Dice over un-prompted SAM in the paper.
        figures: of both runs.
        notes: lines below the table.
    """
    table = Table.of(figures)
    lines = [f"# {title}", "", "| Dice | paper | faithful | ours |", "| --- | --- | --- | --- |"]
    for scoring, words in _SCORINGS.items():
        for method, name in _ROWS.items():
            cells = [_cell(table.means[scoring, run, method]) for run in _RUNS]
            lines.append(f"| {name}, {words} | | {cells[0]} | {cells[1]} |")
        paper = f"{gain:+.2f}" if scoring == "published" else ""
        gains = [f"{table.gain(scoring, run):+.2f}" for run in _RUNS]
        lines.append(f"| gain in points, {words} | {paper} | {gains[0]} | {gains[1]} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def figures_csv(figures: Sequence[Figure]) -> str:
    """Return all figures as CSV; a Dice that does not exist is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Figure)])
    for figure in figures:
        *names, dice = astuple(figure)
        writer.writerow([*names, "" if math.isnan(dice) else f"{dice:.6f}"])
    return text.getvalue()


def _cell(mean: Mean) -> str:
    # One file says nothing about others.
    interval = "" if math.isnan(mean.low) else f" ({mean.low:.3f} to {mean.high:.3f})"
    return f"{mean.dice:.3f}{interval}, n {mean.n}"


def _last(value: float) -> float:
    return -math.inf if math.isnan(value) else value
