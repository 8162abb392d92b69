"""An evaluation as tables for a terminal or a pipe: at most 80 columns wide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from salip_ray.evaluation import (
    Average,
    Evaluation,
    Score,
    VolumeScore,
    instance_averages,
    volume_scores,
)
from salip_ray.evaluation.instances import MATCH_IOU
from salip_ray.evaluation.intervals import nan_mean
from salip_ray.evaluation.stages import GOOD, count_failures
from salip_ray.sources.privacy import is_pseudonym
from salip_ray.wording import counted

METHOD_NAMES = {
    "unprompted": "un-prompted SAM",
    "cascade": "cascade",
    "student": "student",
    "gt_sam": "GT-SAM",
}
"""The headline methods in the order in which they are shown, and their names for people."""

_PSEUDONYM_LETTERS = 16
_STAGE_COLUMNS = {
    "proposal": "lost at\nproposal",
    "pick": "lost at\npick",
    "refine": "lost at\nrefine",
    "empty": "left\nempty",
    "proposal_or_pick": "proposal\nor pick",
}


def dice_table(
    evaluation: Evaluation,
    title: str | None = None,
    groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Table:
    """Return the mean Dice per class of the headline methods, one row per class.

    ``groups`` maps a name to labels: a row after its classes has the mean over them.
    """
    averages = evaluation.averages()
    shown = [name for name in METHOD_NAMES if any(name in m for m in averages.values())]
    table = _table(title)
    table.add_column("Dice")
    for name in shown:
        table.add_column(METHOD_NAMES[name], justify="right")
    table.add_column("images", justify="right")
    for label, methods in averages.items():
        figures = [_figure(methods[name].dice) if name in methods else "" for name in shown]
        n = max(mean.n for mean in methods.values())
        table.add_row(Text(label), *figures, str(n))
        for name, labels in groups.items():
            if label == labels[-1]:
                table.add_row(Text(f"{name}: mean", "bold"), *_group_means(averages, labels, shown))
                table.add_section()
    return table


def _group_means(
    averages: Mapping[str, Mapping[str, Average]], labels: Sequence[str], shown: Sequence[str]
) -> Iterator[str]:
    """Yield the mean over classes of each method that all of them have, else an empty cell."""
    for name in shown:
        of_all = all(name in averages.get(label, {}) for label in labels)
        yield _figure(fmean(averages[label][name].dice for label in labels)) if of_all else ""


def summary_table(evaluation: Evaluation) -> Table:
    """Return the means per class and method, and the number of images behind them."""
    table = _table("Means")
    table.add_column("class and method", overflow="fold")
    for name in ("Dice", "95 %", "IoU", "HD95\npx", "NSD", "images", "both\nempty"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, methods in evaluation.averages().items():
        table.add_row(Text(label, "bold"))
        for method, mean in methods.items():
            variant = (mean.variant or "").removeprefix(f"{method}_")
            table.add_row(
                f" {method} ({variant})" if variant else f" {method}",
                _figure(mean.dice),
                _interval(mean.dice_interval),
                _figure(mean.iou),
                "-" if math.isnan(mean.hd95) else f"{mean.hd95:.1f}",
                _figure(mean.nsd),
                str(mean.n),
                str(mean.empty),
            )
    return table


def stage_table(evaluation: Evaluation) -> Table:
    """Return the mean Dice along the cascade, and how many labels each stage lost."""
    counts = count_failures(evaluation.stages)
    shown = [stage for stage in _STAGE_COLUMNS if any(of[stage] for of in counts.values())]
    title = f"Dice along the cascade, and labels (below {GOOD:g}) lost at each stage"
    table = _table(title, narrow=True)
    table.add_column("class", overflow="fold")
    for name in ("proposed", "picked", "refined", "images"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in shown:
        table.add_column(_STAGE_COLUMNS[stage], justify="right", no_wrap=True)
    for label, of_label in counts.items():
        stages = [item for item in evaluation.stages if item.label == label]
        table.add_row(
            Text(label),
            *(
                _figure(nan_mean([getattr(item, name) for item in stages]))
                for name in ("proposed", "picked", "refined")
            ),
            str(len(stages)),
            *(str(of_label[stage]) for stage in shown),
        )
    return table


def has_several_objects(evaluation: Evaluation) -> bool:
    """Return True if a class has several objects in an image, in labels or references."""
    return any(max(score.labelled, score.reference) > 1 for score in evaluation.instances)


def instance_table(evaluation: Evaluation) -> Table:
    """Return F1 and panoptic quality of the objects of each class and method."""
    table = _table(f"Objects (matched above an IoU of {MATCH_IOU:g})")
    table.add_column("class and method", overflow="fold")
    for name in ("F1", "95 %", "PQ", "matched", "labels", "references"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, methods in instance_averages(evaluation.instances).items():
        table.add_row(Text(label, "bold"))
        for method, mean in methods.items():
            table.add_row(
                f" {method}",
                _figure(mean.f1),
                _interval(mean.f1_interval),
                _figure(mean.pq),
                *map(str, (mean.matched, mean.labelled, mean.reference)),
            )
    return table


def volume_table(evaluation: Evaluation, limit: int | None = None) -> Table:
    """Return the 3-D Dice of each volume and class, one column per method, and the means.

    HD95 and NSD in millimetres are those of the main method.

    Args:
        evaluation: the scores.
        limit: show only so many rows, the lowest Dice of the main method first.
    """
    scores = volume_scores(evaluation)
    methods = _methods(scores)
    rows: dict[tuple[str, str], dict[str, VolumeScore]] = {}
    for score in scores:
        rows.setdefault((score.volume, score.label), {})[score.method] = score
    names, title = _lowest_first(rows, methods, limit, "volume")
    table = _table(f"3-D Dice: {title}")
    table.add_column("volume", overflow="fold", min_width=12)
    table.add_column("class", overflow="fold")
    _add_method_columns(table, methods)
    main = _main(methods)
    in_mm = not all(math.isnan(score.nsd_mm) for score in scores)
    for title in (*(("HD95\nmm", "NSD\n2 mm") if in_mm else ()), "slices"):
        table.add_column(title, justify="right")
    for name in names:
        cells = rows[name]
        (any_one, *_) = cells.values()
        slices = str(any_one.slices)
        if any_one.unscored:
            slices += f" of {any_one.slices + any_one.unscored}"
        shown = any_one.volume[:12] if any_one.uri is None else _short_name(any_one.uri)
        best = cells.get(main, any_one)
        surfaces = map(_figure, (best.hd95_mm, best.nsd_mm) if in_mm else ())
        table.add_row(Text(shown), Text(name[1]), *_dice_cells(cells, methods), *surfaces, slices)
    labels = list(dict.fromkeys(score.label for score in scores))
    if len(rows) > len(labels):
        table.add_section()
        for label in labels:
            of_label = [score for score in scores if score.label == label]
            means = [nan_mean([s.dice for s in of_label if s.method == m]) for m in methods]
            of_main = [score for score in of_label if score.method == main]
            if in_mm:
                means += [nan_mean([getattr(s, n) for s in of_main]) for n in ("hd95_mm", "nsd_mm")]
            table.add_row("mean", Text(label), *map(_figure, means), "")
    return table


def image_table(evaluation: Evaluation, limit: int | None = None) -> Table:
    """Return the Dice of each image and class, one column per method; a dash if both are empty.

    Args:
        evaluation: the scores.
        limit: show only so many rows, the lowest Dice of the main method first.
    """
    methods = _methods(evaluation.scores)
    rows: dict[tuple[str, str], dict[str, Score]] = {}
    for score in evaluation.scores:
        rows.setdefault((score.image_id, score.label), {})[score.method] = score
    names, title = _lowest_first(rows, methods, limit, "image")
    table = _table(f"Dice: {title}")
    table.add_column("image", overflow="fold", min_width=12)
    table.add_column("class", overflow="fold")
    _add_method_columns(table, methods)
    for name in names:
        cells = rows[name]
        (any_one, *_) = cells.values()
        number = "" if any_one.slice is None else f" [{any_one.slice}]"
        shown = Text(f"{_short_name(any_one.uri)}{number}")
        table.add_row(shown, Text(name[1]), *_dice_cells(cells, methods))
    return table


def comparison_table(comparisons: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Return student against teacher, one row per test and class.

    ``comparisons`` maps a test to the result of :func:`salip_ray.student.scoring.comparison`.
    """
    table = _table("Student against teacher (Dice)")
    for name in ("test", "class"):
        table.add_column(name, overflow="fold")
    for name in ("cascade", "student", "difference", "95 %", "better on"):
        table.add_column(name, justify="right")
    for test, classes in comparisons.items():
        for label, figures in classes.items():
            table.add_row(
                Text(test),
                Text(label),
                *(_figure(_number(figures[name])) for name in ("cascade", "student")),
                f"{_number(figures['difference']):+.3f}",
                _interval(tuple(figures["interval"] or (math.nan, math.nan))),
                f"{figures['better_on']} of {figures['n']}",
            )
    return table


def notes(evaluation: Evaluation) -> Iterator[str]:
    """Yield a line for each group of images that is in no mean, and one on joined values."""
    reasons = [item.reason for item in evaluation.unscored]
    for reason, text in (
        ("error", "in no mean: not labelled because of an error"),
        ("without_reference", "in no mean: no reference mask"),
        ("tuned_on", "in no mean: used to choose the recipe (task.tuned_on)"),
        ("calibrated_on", "in no mean: used to fit the confidences (calibration.json)"),
    ):
        if n := reasons.count(reason):
            yield f"{counted(n, 'image')} {text}"
        if reason == "without_reference":
            without = (item for item in evaluation.unscored if item.reason == reason)
            messages = Counter(item.message for item in without)
            yield from (f"{n} of them: {message}" for message, n in messages.items() if message)
    if n := evaluation.not_committed:
        yield f"{counted(n, 'image')} in no mean: not labelled yet (resume the label command)"
    if n := evaluation.joined:
        yield (
            f"{counted(n, 'reference mask')} with several values above 0: all of them count as "
            f"{evaluation.scores[0].label}, the only class of these labels"
        )


def _table(title: str | None, *, narrow: bool = False) -> Table:
    return Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=(0, 0 if narrow else 1, 0, 0),
        pad_edge=False,
    )


def _methods(scores: Sequence[Score] | Sequence[VolumeScore]) -> list[str]:
    return list(dict.fromkeys(score.method for score in scores))


def _main(methods: Sequence[str]) -> str:
    return "cascade" if "cascade" in methods else methods[0]


def _lowest_first(
    rows: Mapping[tuple[str, str], Mapping[str, Score | VolumeScore]],
    methods: Sequence[str],
    limit: int | None,
    noun: str,
) -> tuple[list[tuple[str, str]], str]:
    """Return the names of the rows to show, and how to call them."""
    if limit is None or len(rows) <= limit:
        return list(rows), f"each {noun}"
    main = _main(methods)

    def dice(name: tuple[str, str]) -> float:
        score = rows[name].get(main)
        # Both empty is the best there is.
        return math.inf if score is None or math.isnan(score.dice) else score.dice

    names = sorted(rows, key=dice)[:limit]
    return names, f"the lowest {limit} of {len(rows):,} labels by {main} (--all prints the rest)"


def _add_method_columns(table: Table, methods: Sequence[str]) -> None:
    for method in methods:
        table.add_column(method.replace("_", "\n"), justify="right", no_wrap=True)


def _dice_cells(cells: Mapping[str, Score | VolumeScore], methods: Sequence[str]) -> Iterator[str]:
    return (_figure(cells[method].dice) if method in cells else "" for method in methods)


def _short_name(uri: str) -> str:
    if is_pseudonym(uri):
        return uri[:_PSEUDONYM_LETTERS]
    return uri.rstrip("/").rpartition("/")[2]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(ends: tuple[float, float]) -> str:
    low, high = ends
    return "-" if math.isnan(low) else f"{low:.3f}-{high:.3f}"
