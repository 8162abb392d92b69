"""The report: one self-contained HTML file of one run or several."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from salip_ray.errors import ConfigError
from salip_ray.evaluation.instances import MATCH_IOU
from salip_ray.output.layout import EVALUATION, STATS, SUMMARY, shard_file, shard_numbers
from salip_ray.output.reader import LabelOutput
from salip_ray.output.summary import read_statistics, stored_summary
from salip_ray.report.charts import (
    HistogramChart,
    StackedBar,
    StackedColumns,
    histogram,
    stacked_bar,
    stage_columns,
)
from salip_ray.report.gallery import Item, make_items
from salip_ray.report.scores import FIGURES, Scores
from salip_ray.report.statistics import RunStatistics, collect_statistics, read_rows
from salip_ray.report.tables import METHOD_NAMES
from salip_ray.review.corrections import ClassReviews, count_decisions
from salip_ray.sources.references import References
from salip_ray.wording import counted

GROUPS = {
    "all": ("All labelled images", "the least certain first"),
    "worst": ("Least certain", "check these first"),
    "median": ("Middle", "around the median confidence"),
    "best": ("Most certain", "the most certain first"),
    "random": ("Random", "a random sample of the rest"),
    "empty": ("Without a label", "a random sample"),
}
STAGE_WORDS = {"fetch": "fetch and decode"}
METHOD_WORDS = {
    **METHOD_NAMES,
    "unprompted_confident": "un-prompted SAM, most confident",
    "unprompted_largest": "un-prompted SAM, largest",
    "disagreement": "pixels on which the runs differ",
    "reference": "reference",
}


@dataclass(frozen=True)
class ClassCharts:
    """One class in charts: its outcomes, and the distributions of its figures."""

    label: str
    colour: int
    outcome: StackedBar
    counts: Mapping[str, int]
    reasons: Sequence[tuple[str, int]]
    histograms: Sequence[HistogramChart]


@dataclass(frozen=True)
class Section:
    """The part of a report about one run."""

    anchor: str
    title: str
    labels: LabelOutput
    summary: Mapping[str, Any] | None
    statistics: RunStatistics
    classes: Sequence[ClassCharts]
    confidence: HistogramChart | None
    times: StackedColumns | None
    stages: Mapping[str, float]
    scores: Scores | None
    reviews: Sequence[ClassReviews]
    groups: Sequence[tuple[str, str, Sequence[Item]]]
    errors: Sequence[Item]
    seed: int

    @property
    def card(self) -> list[tuple[str, str]]:
        """What the run was made with, as names and values."""
        return list(_card(self.labels.run, self.summary))

    @property
    def recipe(self) -> str:
        """The recipe as JSON."""
        recipe = self.labels.run["fingerprint"]["recipe"]
        return json.dumps(recipe, indent=2, ensure_ascii=False)

    @property
    def stage_bar(self) -> StackedBar:
        """Worker seconds per image by stage, as shares."""
        words = {
            name: f"{STAGE_WORDS.get(name, name)}: {seconds:.3g} s per image"
            for name, seconds in self.stages.items()
        }
        return stacked_bar("stages", self.stages, words)

    @property
    def finished(self) -> bool:
        """True if every image of the manifest is committed."""
        return self.statistics.rows == self.statistics.n_images


def make_section(
    labels: LabelOutput,
    *,
    input_options: Mapping[str, Any] | None = None,
    references: References | None = None,
    scores: Scores | None = None,
    seed: int = 0,
    per_group: int = 12,
) -> Section:
    """Read a run, fetch the images to show, and return its section.

    Args:
        labels: the output.
        input_options: fsspec options of the images.
        references: reference masks to draw.
        scores: scores to show; by default those of ``evaluation.json`` in the output.
        seed: seed of the random samples.
        per_group: images in each group of the gallery.

    Raises:
        ConfigError: nothing is committed yet.
        OutputError: statistics or rows are damaged.
    """
    statistics = collect_statistics(labels, seed=seed, per_group=per_group)
    if not statistics.rows:
        raise ConfigError(f"{labels.uri} holds no committed shard yet: run the report later")
    rows = read_rows(labels, [ref for refs in statistics.picks.values() for ref in refs])
    ids = {row["image_id"] for row in rows.values()}
    if scores is None and (data := labels.read(EVALUATION)) is not None:
        scores = Scores.parse(data, labels.store.path_of(EVALUATION))
    if scores is not None and not scores.know(ids):
        scores = None
    made = {
        group: make_items(
            labels,
            [rows[ref] for ref in refs],
            input_options=input_options,
            references=references,
            dice=scores.of_images if scores else None,
        )
        for group, refs in statistics.picks.items()
    }
    stats = _stats(labels)
    name = str(labels.run["fingerprint"]["recipe"]["task"]["name"])
    return Section(
        anchor=hashlib.sha256(labels.uri.encode()).hexdigest()[:8],
        title=name,
        labels=labels,
        summary=stored_summary(labels.store),
        statistics=statistics,
        classes=[_class_charts(labels, statistics, spec.label) for spec in labels.classes],
        confidence=histogram("Confidence of the images", statistics.confidence, low=0, high=1),
        times=stage_columns(stats),
        stages=_stage_means(stats),
        reviews=count_decisions(labels),
        scores=scores.among(spec.label for spec in labels.classes) if scores else None,
        groups=[(*GROUPS[g], items) for g, items in made.items() if g in GROUPS],
        errors=made.get("error", []),
        seed=seed,
    )


def render(sections: Sequence[Section], heading: str) -> str:
    """Return the report of some runs as the text of an HTML file."""
    environment = _environment()
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("report.html").render(
        sections=sections,
        heading=heading,
        style=Markup(environment.get_template("report.css").render()),  # noqa: S704 (ours)
        script=Markup(script),  # noqa: S704 (ours)
        script_hash=digest,
        figures=FIGURES,
        headline=METHOD_NAMES,
        match_iou=MATCH_IOU,
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("salip_ray.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    environment.filters["method"] = lambda name: METHOD_WORDS.get(name, name)
    environment.filters["stage"] = lambda name: STAGE_WORDS.get(name, name)
    return environment


def _class_charts(labels: LabelOutput, statistics: RunStatistics, label: str) -> ClassCharts:
    figures = statistics.classes[label]
    colour = next(spec.class_id for spec in labels.classes if spec.label == label)
    errors = statistics.status.get("error", 0)
    counts = {
        "labelled": figures.outcomes.get("labelled", 0) or figures.area.total,
        "empty": figures.outcomes.get("empty", 0),
        "error": errors,
    }
    charts = (
        histogram("Confidence", figures.confidence, low=0, high=1),
        histogram("CLIP score", figures.clip_score),
        histogram("Area, share of the image", figures.area, low=0),
    )
    return ClassCharts(
        label,
        colour,
        stacked_bar(label, counts, {key: f"{key}: {n:,}" for key, n in counts.items()}),
        counts,
        figures.reasons.most_common(8),
        [chart for chart in charts if chart is not None],
    )


def _stats(labels: LabelOutput) -> list[dict[str, Any]]:
    names = [shard_file(STATS, number) for number in sorted(shard_numbers(labels.shards))]
    stats = labels.store.read_all(names)
    return [
        read_statistics(labels.store.path_of(name), stats[name]) for name in names if name in stats
    ]


def _stage_means(stats: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the worker seconds per image by stage, over all shards."""
    rows = sum(shard["rows"] for shard in stats)
    spent: Counter[str] = Counter()
    for shard in stats:
        spent.update(shard["seconds"])
    return {stage: seconds / rows for stage, seconds in spent.items() if seconds}


def _card(run: Mapping[str, Any], summary: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    fingerprint = run["fingerprint"]
    recipe, weights = fingerprint["recipe"], fingerprint.get("weights", {})
    if "consensus" in fingerprint:
        for number, source in fingerprint["consensus"]["runs"].items():
            yield f"Run {number}", str(source["uri"])
    else:
        yield from _models(recipe, weights)
    yield "Modes", ", ".join(recipe["run"]["modes"])
    if fingerprint.get("references"):
        yield "References", str(fingerprint["references"])
    if summary is None:
        yield "Last run", f"not known: {SUMMARY} is damaged (salip-ray verify)"
    elif summary.get("wall_seconds") and summary.get("images_in_run"):
        seconds = float(summary["wall_seconds"])
        yield "Last run", f"{counted(summary['images_in_run'], 'image')} in {_duration(seconds)}"
    if "created" in run:
        yield "Started", str(run["created"]).replace("T", " ").replace("+00:00", " UTC")
    for device in run.get("devices", ()):
        kinds = ", ".join(device.get("accelerators", ())) or "no accelerator"
        yield "Ran on", f"{device['cpus']:g} CPUs, {device['gpus']:g} GPUs ({kinds})"
    versions = run.get("versions", {})
    if versions:
        shown = ("salip-ray", "python", "ray", "torch", "segment-anything", "open_clip_torch")
        yield "Versions", ", ".join(f"{n} {versions[n]}" for n in shown if n in versions)


def _models(recipe: Mapping[str, Any], weights: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for part in ("sam", "clip"):
        if part in weights or part == "sam":
            yield part.upper(), str(recipe[part]["model"])
        if part in weights:
            yield f"{part.upper()} weights, SHA-256", str(weights[part])
    grid = recipe["propose"]["points_per_side"]
    yield "Proposals", f"{grid} x {grid} points, {recipe['propose']['crop_n_layers']} crop layers"
    yield "Shown to CLIP", str(recipe["retrieve"]["visual_prompt"])
    yield "Working image", f"long side {recipe['image']['long_side']} px"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _figure(value: Any, digits: int = 2) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"
