"""The geometry of the report's charts; the template draws it.

Positions and lengths are per cent of the plot's width or height. Words are text of the page next to
the drawing, so that their size does not change on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from salip_ray.report.statistics import Histogram

_BINS = 25
_COLUMNS = 60
_FEWEST_COLUMNS = 4  # fewer show no trend


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram that starts at ``x``; ``title`` describes it in words."""

    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class HistogramChart:
    """A histogram: its bars, the count of the tallest, the ends of its axis, its median."""

    title: str
    bars: Sequence[Bar]
    most: int
    low: str
    high: str
    median: str
    median_at: float
    n: int


@dataclass(frozen=True)
class Part:
    """A piece of a stacked bar: ``key`` decides its colour."""

    key: str
    start: float
    length: float
    title: str


@dataclass(frozen=True)
class StackedBar:
    """A bar made of adjacent parts."""

    name: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class StackedColumns:
    """Stacked columns, all to the scale of ``top``."""

    columns: Sequence[StackedBar]
    top: str
    first: str
    last: str


def histogram(
    title: str, counts: Histogram, *, low: float | None = None, high: float | None = None
) -> HistogramChart | None:
    """Return a histogram of at most 25 bars; None if nothing was counted.

    ``low`` and ``high`` are the ends of the axis, by default those of the values.
    """
    if not counts.total:
        return None
    filled = counts.counts.nonzero()[0]
    width = (counts.high - counts.low) / counts.n
    first = int(filled[0]) if low is None else round((low - counts.low) / width)
    last = int(filled[-1]) + 1 if high is None else round((high - counts.low) / width)
    first, last = min(first, int(filled[0])), max(last, int(filled[-1]) + 1)
    step = max(1, math.ceil((last - first) / _BINS))
    last = min(counts.n, first + step * math.ceil((last - first) / step))
    ends = [*range(first, last, step), last]
    sums = [int(counts.counts[a:b].sum()) for a, b in pairwise(ends)]
    most, span = max(sums), last - first
    digits = max(0, 1 - math.floor(math.log10(step * width)))

    def value(edge: float) -> str:
        return f"{round(counts.low + edge * width, min(digits, 3)):g}"

    bars = [
        Bar(
            x=100 * (start - first) / span,
            width=100 * (end - start) / span,
            height=100 * n / most,
            title=f"{value(start)} to {value(end)}: {n:,}",
        )
        for start, end, n in zip(ends, ends[1:], sums, strict=False)
        if n
    ]
    median = counts.quantile(0.5)
    at = 100 * ((median - counts.low) / width - first) / span
    middle = f"{median:.{min(digits, 3)}f}"
    return HistogramChart(title, bars, most, value(first), value(last), middle, at, counts.total)


def stacked_bar(name: str, amounts: Mapping[str, float], words: Mapping[str, str]) -> StackedBar:
    """Return a bar of the shares of several amounts; ``words`` describes each."""
    total = sum(amounts.values()) or 1.0
    parts, start = [], 0.0
    for key, amount in amounts.items():
        length = 100 * amount / total
        if amount:
            parts.append(Part(key, start, length, words[key]))
        start += length
    return StackedBar(name, parts)


def stage_columns(shards: Sequence[Mapping[str, object]]) -> StackedColumns | None:
    """Return the seconds per image by stage for each shard, or None for very few shards.

    In a long run, neighbouring shards share a column.

    Args:
        shards: the statistics of each shard, in order: ``shard``, ``rows`` and ``seconds`` by
            stage.
    """
    if len(shards) < _FEWEST_COLUMNS:
        return None
    size = math.ceil(len(shards) / _COLUMNS)
    groups = [shards[start : start + size] for start in range(0, len(shards), size)]
    means: list[tuple[str, dict[str, float]]] = []
    for group in groups:
        rows = sum(int(str(shard["rows"])) for shard in group)
        spent: dict[str, float] = {}
        for shard in group:
            seconds = shard["seconds"]
            assert isinstance(seconds, Mapping)
            for stage, value in seconds.items():
                spent[stage] = spent.get(stage, 0.0) + value
        name = f"shard {group[0]['shard']}"
        if len(group) > 1:
            name = f"shards {group[0]['shard']} to {group[-1]['shard']}"
        if rows:
            means.append((name, {stage: value / rows for stage, value in spent.items()}))
    top = max((sum(mean.values()) for _, mean in means), default=0.0)
    if not top:
        return None
    columns = []
    for name, mean in means:
        parts, start = [], 0.0
        for stage, value in mean.items():
            length = 100 * value / top
            parts.append(Part(stage, start, length, f"{name}, {stage}: {value:.3g} s per image"))
            start += length
        columns.append(StackedBar(name, parts))
    first, last = str(shards[0]["shard"]), str(shards[-1]["shard"])
    return StackedColumns(columns, f"{top:.3g}", first, last)
