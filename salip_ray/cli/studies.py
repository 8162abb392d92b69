"""Label, score and draw several sets of images: used by the demo and a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from salip_ray.config import Config
from salip_ray.output.layout import EVALUATION, SUMMARY
from salip_ray.report.tables import METHOD_NAMES, dice_table, notes
from salip_ray.wording import counted

if TYPE_CHECKING:
    from salip_ray.evaluation import Evaluation
    from salip_ray.report.overview import Band
    from salip_ray.sources.references import References


@dataclass(frozen=True)
class Study:
    """One task on one set of images with reference masks.

    ``images`` and ``references`` are as for ``salip-ray label``; ``subtitle`` describes the images
    in a few words.
    """

    config: Config
    images: Path
    references: Path
    output: Path
    subtitle: str


def run_studies(
    studies: Sequence[Study], folder: Path, *, heading: str, shown: int = 4, quiet: bool = False
) -> Evaluation:
    """Label, score and draw all studies. Completed outputs are not labelled again.

    Writes ``evaluation.json`` and ``overview.png`` to ``folder``, and ``evaluation.json`` and
    ``summary_nnunet.json`` of each study to ``folder/scores/``. Prints the mean Dice of un-prompted
    SAM, the cascade and GT-SAM per class, and per task with several classes. The figure shows the
    first ``shown`` images of each study, good or bad.
    """
    from salip_ray import pipeline
    from salip_ray.evaluation import Evaluation, as_json
    from salip_ray.evaluation.outputs import evaluate_output, write_results
    from salip_ray.output.reader import LabelOutput
    from salip_ray.pipeline.shared_session import shared_session
    from salip_ray.report.overview import overview
    from salip_ray.sources.references import References

    evaluation, bands = Evaluation(()), []
    with ExitStack() as stack:
        if not all(_complete(study.output) for study in studies):
            stack.enter_context(shared_session(study.config for study in studies))
        for study in studies:
            pipeline.label(
                study.images,
                study.output,
                study.config,
                references=str(study.references),
                quiet=quiet,
            )
    for study in studies:
        labels = LabelOutput.open(str(study.output))
        references = References.open(str(study.references))
        result = evaluate_output(labels, references)
        scores = folder / "scores" / study.output.name
        write_results(result, scores / EVALUATION, labels, references)
        evaluation += result
        bands.append(_band(study, labels, references, result, shown))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EVALUATION).write_text(as_json(evaluation), encoding="utf-8")
    drawn = max(len(band.panels) for band in bands)
    overview(
        bands,
        folder / "overview.png",
        method_names=METHOD_NAMES,
        heading=heading,
        footnote=f"The first {counted(drawn, 'image')} of each set. Research use only.",
    )
    console = Console()
    organs = {s.config.task.name: [spec.label for spec in s.config.task.classes] for s in studies}
    groups = {name: labels for name, labels in organs.items() if len(labels) > 1}
    console.print(dice_table(evaluation, groups=groups))
    for note in notes(evaluation):
        console.print(note, highlight=False)
    return evaluation


def _complete(output: Path) -> bool:
    """Return True if a run has finished: it writes its summary last."""
    return (output / SUMMARY).is_file()


def _band(
    study: Study, labels: Any, references: References, evaluation: Evaluation, shown: int
) -> Band:
    """Return the band of the overview for a study."""
    from itertools import islice
    from statistics import fmean

    from salip_ray.cascade.geometry import class_references
    from salip_ray.datasets.images import Images
    from salip_ray.output.masks import decode_rle
    from salip_ray.report.overview import Band, Panel

    averages = evaluation.averages()
    classes = list(averages)
    dice = {(s.image_id, s.label, s.method): s.dice for s in evaluation.scores}
    scored = {score.image_id for score in evaluation.scores}
    rows = list(islice((row for row in labels.rows() if row["image_id"] in scored), shown))
    images = Images("", None, study.config.image, {})
    # "unprompted" stands for the better of two methods on average, which may differ by class.
    methods = {
        name: {label: means[name].variant or name for label, means in averages.items()}
        for name in METHOD_NAMES
        if all(name in means for means in averages.values())
    }
    panels: list[Panel] = []
    for row in rows:
        masks = {(m["method"], m["label"]): m["rle"] for m in row["masks"]}
        picture = labels.image_ref(row)
        mask = references.find(picture)
        assert mask is not None, "a row without a reference has no score"
        by_class = class_references(references.load(mask, labels.image_config), labels.classes)
        panels.append(
            Panel(
                image=images.load(picture),
                references=[by_class[label] for label in classes],
                masks={
                    name: [
                        decode_rle(masks[method, label]) if (method, label) in masks else None
                        for label, method in variants.items()
                    ]
                    for name, variants in methods.items()
                },
                dice={
                    name: fmean(dice[row["image_id"], label, method] for label, method in v.items())
                    for name, v in methods.items()
                },
            )
        )
    mean_dice = {name: fmean(means[name].dice for means in averages.values()) for name in methods}
    n = max(mean.n for means in averages.values() for mean in means.values())
    return Band(classes, study.subtitle, panels, mean_dice, n)
