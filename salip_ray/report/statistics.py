"""Statistics of a run of any size in one pass: counts, distributions, and which images to show.

Shards are read without the pixels of their masks and added to figures of a fixed size. Each group
of images to show holds those with the smallest keys. Random keys, seeded by the shard's number,
give a uniform sample that does not depend on the reading order; confidences give the best and the
worst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from salip_ray.output.reader import LabelOutput
from salip_ray.report.confidence import FIELDS, confidence

Floats = npt.NDArray[np.float64]

_PIXEL_COLUMNS = (
    *("masks.rle", "masks.proposed", "masks.instances"),
    *("masks.prompt_boxes", "masks.candidate_ids"),
)
_READERS = 8  # shards read at once, because stores answer slowly
_MEDIAN_POOL = 2048  # random images, of which those nearest to the median are shown


class RowRef(NamedTuple):
    """A row: the name of its shard, and its number in it."""

    shard: str
    row: int


@dataclass
class Histogram:
    """Counts in ``n`` equal bins from ``low`` to ``high``; outer bins include values beyond."""

    low: float
    high: float
    n: int = 1000
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.n, np.int64)

    def add(self, values: Floats) -> None:
        """Count values, except NaN."""
        values = values[np.isfinite(values)]
        bins = ((values - self.low) / (self.high - self.low) * self.n).astype(np.int64)
        self.counts += np.bincount(np.clip(bins, 0, self.n - 1), minlength=self.n)

    @property
    def total(self) -> int:
        """The number of counted values."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Return the value below which ``share`` of the values lie; NaN without values."""
        if not self.total:
            return float("nan")
        index = int(np.searchsorted(np.cumsum(self.counts), share * self.total))
        return self.low + (min(index, self.n - 1) + 0.5) * (self.high - self.low) / self.n


@dataclass
class ClassFigures:
    """Distributions of one class: its outcomes, and its masks by the shown method."""

    label: str
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    confidence: Histogram = field(default_factory=lambda: Histogram(0.0, 1.0))
    clip_score: Histogram = field(default_factory=lambda: Histogram(-100.0, 100.0, 4000))
    area: Histogram = field(default_factory=lambda: Histogram(0.0, 1.0))


class _SmallestKeys:
    """The rows of the ``n`` smallest keys, each with a value."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.items: list[tuple[float, RowRef, float]] = []

    def add(self, shard: str, rows: Iterable[int], keys: Floats, values: Floats) -> None:
        added = [
            (float(key), RowRef(shard, int(row)), float(value))
            for key, row, value in zip(keys, rows, values, strict=True)
        ]
        # Sorting only what can stay.
        bound = self.items[-1][0] if len(self.items) == self.n else np.inf
        self.items = sorted([*self.items, *(item for item in added if item[0] <= bound)])[: self.n]


@dataclass
class RunStatistics:
    """The statistics of the committed rows of a run.

    Attributes:
        n_images: number of images in the manifest.
        rows: number of committed rows.
        status: number of rows by status.
        method: the method of the distributions: ``cascade``, else the first of the run.
        classes: figures by class.
        errors: number of error rows by stage and type.
        confidence: of images: that of their least certain class.
        picks: the rows to show, by group.
    """

    n_images: int
    method: str
    classes: dict[str, ClassFigures]
    rows: int = 0
    status: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    confidence: Histogram = field(default_factory=lambda: Histogram(0.0, 1.0))
    picks: dict[str, list[RowRef]] = field(default_factory=dict)


def collect_statistics(
    labels: LabelOutput, *, seed: int = 0, per_group: int = 12, n_errors: int = 24
) -> RunStatistics:
    """Read every committed shard once; return the statistics of the run.

    Args:
        labels: the output.
        seed: seed of the random picks.
        per_group: images in each group of ``picks``. A run of at most twice as many labelled
            images has one group, ``all``; others have the disjoint groups ``worst``, ``median``,
            ``best`` and ``random``. ``empty`` holds images without any label.
        n_errors: rows in the group ``error``.
    """
    method = "cascade" if "cascade" in labels.methods else labels.methods[0]
    statistics = RunStatistics(
        labels.n_images(), method, {c.label: ClassFigures(c.label) for c in labels.classes}
    )
    pools = {
        "worst": _SmallestKeys(4 * per_group),
        "best": _SmallestKeys(4 * per_group),
        "random": _SmallestKeys(max(_MEDIAN_POOL, 4 * per_group)),
        "empty": _SmallestKeys(per_group),
        "error": _SmallestKeys(n_errors),
    }
    for name, table in _tables(labels):
        _add(statistics, pools, name, table, np.random.default_rng([seed, int(name[5:-8])]))
    statistics.picks = _choose(pools, statistics, per_group)
    return statistics


def _tables(labels: LabelOutput) -> Iterator[tuple[str, pa.Table]]:
    with ThreadPoolExecutor(_READERS) as readers:
        shards = labels.shards
        for start in range(0, len(shards), 4 * _READERS):
            names = shards[start : start + 4 * _READERS]
            tables = readers.map(lambda name: labels.table(name, without=_PIXEL_COLUMNS), names)
            yield from zip(names, tables, strict=True)


def _add(
    statistics: RunStatistics,
    pools: Mapping[str, _SmallestKeys],
    name: str,
    table: pa.Table,
    random: np.random.Generator,
) -> None:
    statistics.rows += table.num_rows
    statuses = np.array(table["status"].to_pylist(), dtype=object)
    statistics.status.update(statuses.tolist())
    _add_outcomes(statistics, table)
    sure = _add_masks(statistics, table)
    statistics.confidence.add(sure)
    keys = random.random(table.num_rows)
    for group, chosen, key in (
        ("worst", np.isfinite(sure), sure),
        ("best", np.isfinite(sure), -sure),
        ("random", np.isfinite(sure), keys),
        ("empty", (statuses != "error") & ~np.isfinite(sure), keys),
        ("error", statuses == "error", keys),
    ):
        rows = np.flatnonzero(chosen)
        pools[group].add(name, rows.tolist(), key[rows], sure[rows])


def _add_outcomes(statistics: RunStatistics, table: pa.Table) -> None:
    outcomes = Counter(
        (item["label"], item["outcome"], item["reason"])
        for items in table["outcomes"].to_pylist()
        for item in items or ()
    )
    for (label, outcome, reason), n in outcomes.items():
        statistics.classes[label].outcomes[outcome] += n
        if reason:
            statistics.classes[label].reasons[reason] += n
    for error in table["error"].drop_null().to_pylist():
        statistics.errors[str(error["stage"]), str(error["type"])] += 1


def _add_masks(statistics: RunStatistics, table: pa.Table) -> Floats:
    """Add the figures of the masks; return the confidence of each image, NaN without a label."""
    sure = np.full(table.num_rows, np.nan)
    rows = table["masks"].combine_chunks()
    masks, parents = pc.list_flatten(rows), pc.list_parent_indices(rows).to_numpy()
    pixels = _floats(table["height"]) * _floats(table["width"])
    if not len(masks):
        return sure
    columns = {item.name: masks.field(item.name) for item in masks.type}
    mine = np.array(columns["method"].to_pylist(), dtype=object) == statistics.method
    labels = np.array(columns["label"].to_pylist(), dtype=object)
    confidences = confidence({k: _floats(columns[k]) for k in FIELDS if k in columns})
    areas = _floats(columns["area"]) / pixels[parents]
    scores = _floats(columns["clip_score"])
    for label, figures in statistics.classes.items():
        these = mine & (labels == label)
        figures.confidence.add(confidences[these])
        figures.clip_score.add(scores[these])
        figures.area.add(areas[these])
    these = mine & np.isfinite(confidences)
    np.fmin.at(sure, parents[these], confidences[these])
    return sure


def _floats(column: Any) -> Floats:
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _choose(
    pools: Mapping[str, _SmallestKeys], statistics: RunStatistics, per_group: int
) -> dict[str, list[RowRef]]:
    labelled = statistics.confidence.total
    picks: dict[str, list[RowRef]] = {}
    if labelled <= 2 * per_group:
        picks["all"] = [ref for _, ref, _ in pools["worst"].items]
    else:
        middle = statistics.confidence.quantile(0.5)
        central = sorted(pools["random"].items, key=lambda item: (abs(item[2] - middle), item[1]))
        taken: set[RowRef] = set()
        for group, ranked in (
            ("worst", pools["worst"].items),
            ("median", central),
            ("best", pools["best"].items),
            ("random", pools["random"].items),
        ):
            fresh = [ref for _, ref, _ in ranked if ref not in taken][:per_group]
            taken.update(fresh)
            picks[group] = fresh
    for group in ("empty", "error"):
        picks[group] = [ref for _, ref, _ in pools[group].items]
    return {group: refs for group, refs in picks.items() if refs}


def read_rows(labels: LabelOutput, refs: Iterable[RowRef]) -> dict[RowRef, dict[str, Any]]:
    """Return the whole rows; each shard is read once."""
    wanted: dict[str, list[int]] = {}
    for ref in refs:
        wanted.setdefault(ref.shard, []).append(ref.row)

    def take(shard: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = labels.table(shard).take(wanted[shard]).to_pylist()
        return rows

    with ThreadPoolExecutor(_READERS) as readers:
        return {
            RowRef(shard, row): cells
            for shard, rows in zip(wanted, readers.map(take, wanted), strict=True)
            for row, cells in zip(wanted[shard], rows, strict=True)
        }
