"""One pass over a run of any size: counts, distributions, and which images to show.

A shard at a time is read, without its masks' pixels, and added to figures of a fixed size. Images
are picked by keys, the smallest of which are kept: random keys, seeded by the shard's number, make
a uniform sample that does not depend on the order of reading; confidences make the best and the
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

_HEAVY = (
    *("masks.rle.counts", "masks.rle.size", "masks.proposed.counts", "masks.proposed.size"),
    *("masks.prompt_boxes", "masks.candidate_ids"),
)
_READERS = 8  # shards read at once: a store answers slowly, but many at a time
_MEDIAN_POOL = 2048  # of so many random images those nearest to the median are shown


class Place(NamedTuple):
    """Where a row is: the name of its shard, and its number there."""

    shard: str
    row: int


@dataclass
class Histogram:
    """Counts in ``n`` equal bins from ``low`` to ``high``; the outermost take what lies beyond."""

    low: float
    high: float
    n: int = 1000
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.n, np.int64)

    def add(self, values: Floats) -> None:
        """Count values; NaN is not counted."""
        values = values[np.isfinite(values)]
        bins = ((values - self.low) / (self.high - self.low) * self.n).astype(np.int64)
        self.counts += np.bincount(np.clip(bins, 0, self.n - 1), minlength=self.n)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value below which ``share`` of the values lie, to the middle of a bin; else NaN."""
        if not self.total:
            return float("nan")
        index = int(np.searchsorted(np.cumsum(self.counts), share * self.total))
        return self.low + (min(index, self.n - 1) + 0.5) * (self.high - self.low) / self.n


@dataclass
class ClassFigures:
    """Distributions of one class: of its masks by the method shown, and of its outcomes."""

    label: str
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    confidence: Histogram = field(default_factory=lambda: Histogram(0.0, 1.0))
    clip_score: Histogram = field(default_factory=lambda: Histogram(-100.0, 100.0, 4000))
    area: Histogram = field(default_factory=lambda: Histogram(0.0, 1.0))


class _Smallest:
    """The ``n`` places of the smallest keys, and the value that belongs to each."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.kept: list[tuple[float, Place, float]] = []

    def add(self, shard: str, rows: Iterable[int], keys: Floats, values: Floats) -> None:
        found = [
            (float(key), Place(shard, int(row)), float(value))
            for key, row, value in zip(keys, rows, values, strict=True)
        ]
        # No more than n of one shard can stay, and none above the worst that is kept.
        bound = self.kept[-1][0] if len(self.kept) == self.n else np.inf
        self.kept = sorted([*self.kept, *(item for item in found if item[0] <= bound)])[: self.n]


@dataclass
class Survey:
    """What :func:`survey` found.

    Attributes:
        n_images: images of the run's manifest.
        rows: rows committed.
        status: rows by status.
        method: the method whose masks the distributions are of: ``cascade``, else the first.
        classes: figures by class.
        errors: error rows by stage and type.
        confidence: of images, which is that of their least sure class.
        picks: which rows to show, by group.
    """

    n_images: int
    method: str
    classes: dict[str, ClassFigures]
    rows: int = 0
    status: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    confidence: Histogram = field(default_factory=lambda: Histogram(0.0, 1.0))
    picks: dict[str, list[Place]] = field(default_factory=dict)


def survey(
    labels: LabelOutput, *, seed: int = 0, per_group: int = 12, n_errors: int = 24
) -> Survey:
    """Read every committed shard once.

    Args:
        labels: the output.
        seed: of the random picks.
        per_group: images in each group of ``picks``. A run of at most twice as many labelled
            images has one group, ``all``; others have ``worst``, ``median``, ``best`` and
            ``random``, no image being in two. ``empty`` holds images without any label.
        n_errors: rows in the group ``error``.
    """
    method = "cascade" if "cascade" in labels.methods else labels.methods[0]
    found = Survey(
        labels.n_images(), method, {c.label: ClassFigures(c.label) for c in labels.classes}
    )
    pools = {
        "worst": _Smallest(4 * per_group),
        "best": _Smallest(4 * per_group),
        "random": _Smallest(max(_MEDIAN_POOL, 4 * per_group)),
        "empty": _Smallest(per_group),
        "error": _Smallest(n_errors),
    }
    for name, table in _tables(labels):
        _add(found, pools, name, table, np.random.default_rng([seed, int(name[5:-8])]))
    found.picks = _choose(pools, found, per_group)
    return found


def _tables(labels: LabelOutput) -> Iterator[tuple[str, pa.Table]]:
    with ThreadPoolExecutor(_READERS) as readers:
        shards = labels.shards
        for start in range(0, len(shards), 4 * _READERS):
            names = shards[start : start + 4 * _READERS]
            tables = readers.map(lambda name: labels.table(name, without=_HEAVY), names)
            yield from zip(names, tables, strict=True)


def _add(
    found: Survey,
    pools: Mapping[str, _Smallest],
    name: str,
    table: pa.Table,
    random: np.random.Generator,
) -> None:
    found.rows += table.num_rows
    statuses = np.array(table["status"].to_pylist(), dtype=object)
    found.status.update(statuses.tolist())
    _add_outcomes(found, table)
    sure = _add_masks(found, table)
    found.confidence.add(sure)
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


def _add_outcomes(found: Survey, table: pa.Table) -> None:
    outcomes = Counter(
        (item["label"], item["outcome"], item["reason"])
        for items in table["outcomes"].to_pylist()
        for item in items or ()
    )
    for (label, outcome, reason), n in outcomes.items():
        found.classes[label].outcomes[outcome] += n
        if reason:
            found.classes[label].reasons[reason] += n
    for error in table["error"].drop_null().to_pylist():
        found.errors[str(error["stage"]), str(error["type"])] += 1


def _add_masks(found: Survey, table: pa.Table) -> Floats:
    """Add the masks' figures; returns each image's confidence, NaN where it has no label."""
    sure = np.full(table.num_rows, np.nan)
    rows = table["masks"].combine_chunks()
    masks, parents = pc.list_flatten(rows), pc.list_parent_indices(rows).to_numpy()
    pixels = _floats(table["height"]) * _floats(table["width"])
    if not len(masks):
        return sure
    columns = {item.name: masks.field(item.name) for item in masks.type}
    mine = np.array(columns["method"].to_pylist(), dtype=object) == found.method
    labels = np.array(columns["label"].to_pylist(), dtype=object)
    confidences = confidence({k: _floats(columns[k]) for k in FIELDS if k in columns})
    areas = _floats(columns["area"]) / pixels[parents]
    scores = _floats(columns["clip_score"])
    for label, figures in found.classes.items():
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
    pools: Mapping[str, _Smallest], found: Survey, per_group: int
) -> dict[str, list[Place]]:
    labelled = found.confidence.total
    picks: dict[str, list[Place]] = {}
    if labelled <= 2 * per_group:
        picks["all"] = [place for _, place, _ in pools["worst"].kept]
    else:
        middle = found.confidence.quantile(0.5)
        central = sorted(pools["random"].kept, key=lambda item: (abs(item[2] - middle), item[1]))
        taken: set[Place] = set()
        for group, ranked in (
            ("worst", pools["worst"].kept),
            ("median", central),
            ("best", pools["best"].kept),
            ("random", pools["random"].kept),
        ):
            fresh = [place for _, place, _ in ranked if place not in taken][:per_group]
            taken.update(fresh)
            picks[group] = fresh
    for group in ("empty", "error"):
        picks[group] = [place for _, place, _ in pools[group].kept]
    return {group: places for group, places in picks.items() if places}


def rows_at(labels: LabelOutput, places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
    """The whole rows at some places, each shard being read once."""
    wanted: dict[str, list[int]] = {}
    for place in places:
        wanted.setdefault(place.shard, []).append(place.row)

    def take(shard: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = labels.table(shard).take(wanted[shard]).to_pylist()
        return rows

    with ThreadPoolExecutor(_READERS) as readers:
        return {
            Place(shard, row): cells
            for shard, found in zip(wanted, readers.map(take, wanted), strict=True)
            for row, cells in zip(wanted[shard], found, strict=True)
        }
