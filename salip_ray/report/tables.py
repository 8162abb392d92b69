"""An evaluation as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from salip_ray.evaluation import Evaluation
from salip_ray.evaluation.nnunet import nan_mean
from salip_ray.evaluation.stages import GOOD, STAGES, failures
from salip_ray.evaluation.volumes import VolumeScore, volume_scores

METHOD_NAMES = {
    "unprompted": "un-prompted SAM",
    "cascade": "cascade",
    "student": "student",
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
    for name in ("Dice", "95 %", "IoU", "HD95 px", "NSD", "images", "both empty"):
        table.add_column(name, justify="right")
    for label, methods in evaluation.averages().items():
        for number, (method, mean) in enumerate(methods.items()):
            name = method if mean.variant is None else f"{method} (= {mean.variant})"
            table.add_row(
                "" if number else label,
                name,
                _figure(mean.dice),
                _interval(mean.dice_interval),
                _figure(mean.iou),
                "-" if math.isnan(mean.hd95) else f"{mean.hd95:.1f}",
                _figure(mean.nsd),
                str(mean.n),
                str(mean.empty),
            )
        table.add_section()
    return table


def stage_table(evaluation: Evaluation) -> Table:
    """Mean Dice along the cascade, and how many labels each stage lost."""
    table = Table(
        title=f"Where the Dice went (a label below {GOOD:g} failed)",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("class")
    for name in ("best proposals", "picked", "refined", "images", *STAGES.values()):
        table.add_column(name, justify="right")
    for label, counts in failures(evaluation.walks).items():
        walks = [walk for walk in evaluation.walks if walk.label == label]
        table.add_row(
            label,
            *(
                _figure(nan_mean([getattr(walk, name) for walk in walks]))
                for name in ("proposed", "picked", "refined")
            ),
            str(len(walks)),
            *(str(counts[stage]) for stage in STAGES),
        )
    return table


def volume_table(evaluation: Evaluation) -> Table:
    """Dice in 3-D of each volume and class, one column a method, and their means."""
    found = volume_scores(evaluation)
    methods = list(dict.fromkeys(score.method for score in found))
    rows: dict[tuple[str, str], dict[str, VolumeScore]] = {}
    for score in found:
        rows.setdefault((score.volume, score.label), {})[score.method] = score
    table = Table(
        title="Dice in 3-D", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold"
    )
    table.add_column("volume", overflow="fold", min_width=12)
    table.add_column("class")
    for method in methods:
        table.add_column(method.replace("_", "\n"), justify="right", no_wrap=True)
    table.add_column("slices", justify="right")
    for (_, label), cells in rows.items():
        (any_one, *_) = cells.values()
        slices = str(any_one.slices)
        if any_one.unscored:
            slices += f" of {any_one.slices + any_one.unscored}"
        figures = [_figure(cells[method].dice) if method in cells else "" for method in methods]
        name = any_one.volume[:12] if any_one.uri is None else _name(any_one.uri)
        table.add_row(name, label, *figures, slices)
    labels = list(dict.fromkeys(score.label for score in found))
    if len(rows) > len(labels):
        table.add_section()
        for label in labels:
            of_label = [score for score in found if score.label == label]
            means = [nan_mean([s.dice for s in of_label if s.method == m]) for m in methods]
            table.add_row("mean", label, *map(_figure, means), "")
    return table


def image_table(evaluation: Evaluation) -> Table:
    """Dice / IoU of each image and class, one column a method; a dash where both are empty."""
    methods = list(dict.fromkeys(score.method for score in evaluation.scores))
    names: dict[str, str] = {}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for score in evaluation.scores:
        cell = f"{_figure(score.dice)} / {_figure(score.iou)}"
        rows.setdefault((score.image_id, score.label), {})[score.method] = cell
        place = "" if score.slice is None else f" [{score.slice}]"
        names[score.image_id] = f"{_name(score.uri)}{place}"
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
    for (image_id, label), cells in rows.items():
        name = Text(names[image_id])  # its brackets are no markup
        table.add_row(name, label, *(cells.get(method, "") for method in methods))
    return table


def comparison_table(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Student against teacher, a row for each test and class.

    ``found`` maps a test to what :func:`salip_ray.student.scoring.comparison` says of it.
    """
    table = Table(
        title="Does the student beat its teacher? (Dice)",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    for name in ("test", "class"):
        table.add_column(name)
    for name in ("cascade", "student", "difference", "95 %", "better on"):
        table.add_column(name, justify="right")
    for test, classes in found.items():
        for label, figures in classes.items():
            table.add_row(
                test,
                label,
                *(_figure(_number(figures[name])) for name in ("cascade", "student")),
                f"{_number(figures['difference']):+.3f}",
                _interval(tuple(figures["interval"] or (math.nan, math.nan))),
                f"{figures['better_on']} of {figures['n']}",
            )
    return table


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def notes(evaluation: Evaluation) -> Iterator[str]:
    """A line for each thing that the means do not say."""
    reasons = [item.reason for item in evaluation.unscored]
    if errors := reasons.count("error"):
        yield f"{errors} images are error rows and count in no mean"
    if missing := reasons.count("without_reference"):
        yield f"{missing} images have no reference mask and count in no mean"
    if tuned := reasons.count("tuned_on"):
        yield f"{tuned} images chose the recipe (task.tuned_on) and count in no mean"
    if evaluation.not_committed:
        yield f"{evaluation.not_committed} images are not labelled yet: the run is not finished"


def _name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(ends: tuple[float, float]) -> str:
    low, high = ends
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
