"""An evaluation as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.table import Table

from salip_ray.evaluation import Evaluation

METHOD_NAMES = {
    "unprompted": "un-prompted SAM",
    "cascade": "cascade",
    "gt_sam": "GT-SAM",
}
"""The headline methods, in the order in which they are shown, and how a person calls them."""


def dice_table(evaluation: Evaluation, title: str | None = None) -> Table:
    """Mean Dice per class for the headline methods: one row a class."""
    averages = evaluation.averages()
    shown = [name for name in METHOD_NAMES if any(name in m for m in averages.values())]
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("Dice")
    for name in shown:
        table.add_column(METHOD_NAMES[name], justify="right")
    table.add_column("images", justify="right")
    for label, methods in averages.items():
        figures = [_figure(methods[name].dice) if name in methods else "" for name in shown]
        n = max(mean.n for mean in methods.values())
        table.add_row(label, *figures, str(n))
    return table


def summary_table(evaluation: Evaluation) -> Table:
    """Means per class and method, and how many images they are made of."""
    table = Table(title="Means", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in ("class", "method"):
        table.add_column(name)
    for name in ("Dice", "IoU", "images", "both empty"):
        table.add_column(name, justify="right")
    for label, methods in evaluation.averages().items():
        for number, (method, mean) in enumerate(methods.items()):
            name = method if mean.variant is None else f"{method} (= {mean.variant})"
            table.add_row(
                "" if number else label,
                name,
                _figure(mean.dice),
                _figure(mean.iou),
                str(mean.n),
                str(mean.empty),
            )
        table.add_section()
    return table


def image_table(evaluation: Evaluation) -> Table:
    """Dice / IoU of each image and class, one column a method; a dash where both are empty."""
    methods = list(dict.fromkeys(score.method for score in evaluation.scores))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for score in evaluation.scores:
        cell = f"{_figure(score.dice)} / {_figure(score.iou)}"
        rows.setdefault((score.uri, score.label), {})[score.method] = cell
    table = Table(
        title="Dice / IoU of each image",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("image", overflow="fold", min_width=12)
    table.add_column("class")
    for method in methods:
        table.add_column(method.replace("_", "\n"), justify="right", no_wrap=True)
    for (uri, label), cells in rows.items():
        name = uri.rstrip("/").rpartition("/")[2]
        table.add_row(name, label, *(cells.get(method, "") for method in methods))
    return table


def notes(evaluation: Evaluation) -> Iterator[str]:
    """A line for each thing that the means do not say."""
    reasons = [item.reason for item in evaluation.unscored]
    if errors := reasons.count("error"):
        yield f"{errors} images are error rows and count in no mean"
    if missing := reasons.count("without_reference"):
        yield f"{missing} images have no reference mask and count in no mean"
    if evaluation.not_committed:
        yield f"{evaluation.not_committed} images are not labelled yet: the run is not finished"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
