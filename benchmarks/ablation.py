"""Measurements of the recipe: ``make ablation``.

Tables with 95 % bootstrap intervals over images, and a picture:

    options    each option of the recipe switched alone, on phantoms of the tune bank: what decides
               whether it is part of the ``bundled`` preset
    methods    un-prompted SAM, the paper's recipe, ours, oracle choice and GT-SAM, on phantoms of
               the test bank and on the real images, if they are at hand (see realdata.py)
    presence   each of the three tasks on images of all three kinds: is the organ recognised?
    failures   a picture of the worst phantoms of the tune bank, docs/bundled-failures.png
    clip       how well CLIP names crops

The tables of methods have CPU seconds per image and stage, of the machine and its load.

Proposals and CLIP's features are cached in ``--output``, so that a second run, or a run with
another variant, takes seconds. The ablation chooses nothing: thresholds and options come from the
presets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from ablation_report import markdown
from cached import Item
from failures import Failure, failure_sheet
from intervals import Column, rounded
from recipes import ORGANS, Bench, phantoms, real_images, scores
from rich.console import Console

from salip_ray.cascade.compose import CascadeMasks
from salip_ray.models.bundled.vocabulary import known_classes
from salip_ray.models.clip.load import ClipModel
from salip_ray.models.identity import identify
from training.clip_eval import naming

PROJECT = Path(__file__).resolve().parents[1]
PARTS = ("options", "methods", "presence", "failures", "clip")
_MIXED = "retrieve.min_presence=0.3"  # for inputs of several kinds; chosen on the tune bank
_ALL_MODES = "run.modes=[cascade, unprompted, gt_sam]"

#: Option -> what switches it from the recipe of the ``bundled`` preset, alone.
OPTIONS: dict[str, tuple[str, ...]] = {
    "rank by cosine": ("retrieve.scoring=cosine",),
    "rank by softmax, distractors": ("retrieve.scoring=softmax",),
    "the same candidate twice": ("retrieve.max_overlap=1",),
    "SAM's prior x 1": ("retrieve.sam_prior=1",),
    "SAM's prior x 4": ("retrieve.sam_prior=4",),
    "no prior": ("retrieve.sam_prior=0",),
    "one visual prompt (crops)": ("retrieve.ensemble=[]",),
    "ensemble: crops, contour": ("retrieve.ensemble=[contour]",),
    "ensemble: crops, crop_expand, bbox": ("retrieve.ensemble=[crop_expand, bbox]",),
    "ensemble: paddings": ("retrieve.padding=both",),
    "plain box": (
        "refine.mask_feedback=0",
        "refine.box_jitter=0",
        "refine.centre_point=false",
        "refine.negative_points=false",
    ),
    "box jitter x 8": ("refine.box_jitter=8",),
    "mask feedback x 1": ("refine.mask_feedback=1",),
    "mask feedback x 2": ("refine.mask_feedback=2",),
    "centre point": ("refine.centre_point=true",),
    "negative points": ("refine.negative_points=true",),
    "holes filled": ("refine.fill_holes=true",),
    "parts below a tenth removed": ("refine.min_part=0.1",),
    "tidied not at all": ("refine.fill_holes=false", "refine.min_part=0"),
}


def options_table(
    bench: Bench, count: int, options: Mapping[str, tuple[str, ...]] = OPTIONS
) -> dict[str, Any]:
    """Return the Dice of the recipe with each option on the tune bank, and the change it makes."""
    table: dict[str, Any] = {}
    for task, kind in ORGANS.items():
        base = bench.variant(task, name="our recipe")
        variants = [base]
        for name, overrides in options.items():
            variant = bench.variant(task, *overrides, name=name)
            if variant.config != base.config:
                variants.append(variant)
        columns = {variant.name: Column() for variant in variants}
        for cached in bench.cached(phantoms(kind, "tune", count), *variants):
            for variant in variants:
                entries = scores(variant.label(cached), cached)
                columns[variant.name].values.append(entries.get("cascade", 0.0))
        against = columns[base.name]
        table[task] = {name: column.summary(against) for name, column in columns.items()}
    return table


def methods_table(
    ours: Bench, paper: Bench | None, images: Callable[[str], list[Item]], papers_share: int | None
) -> dict[str, Any]:
    """Every method on the images of each task; the paper's recipe on ``papers_share`` of them."""
    table: dict[str, Any] = {}
    for task in ORGANS:
        items = images(task)
        if not items:
            continue
        variant, plain = ours.variant(task, _ALL_MODES), ours.variant(task)
        columns: dict[str, Column] = {}
        seconds: list[dict[str, float]] = []
        for cached in ours.cached(items, variant):
            entries = scores(variant.label(cached), cached)
            entries["oracle"] = plain.oracle(cached)
            for name in ("cascade", "unprompted_confident", "unprompted_largest", "gt_sam"):
                columns.setdefault(name, Column()).values.append(entries.get(name, 0.0))
            columns.setdefault("oracle", Column()).values.append(entries["oracle"])
            seconds.append(cached.seconds)
        if paper is not None:
            recipe = paper.variant(task)
            papers = columns["paper"] = Column()
            for cached in paper.cached(_spread(items, papers_share), recipe):
                papers.values.append(scores(recipe.label(cached), cached).get("cascade", 0.0))
        unprompted = max(
            (columns[name] for name in ("unprompted_confident", "unprompted_largest")),
            key=lambda column: np.mean(column.values),
        )
        named = {
            "unprompted": unprompted,
            "paper's recipe": columns.get("paper"),
            "our recipe": columns["cascade"],
            "oracle choice": columns["oracle"],
            "GT-SAM": columns["gt_sam"],
        }
        table[task] = {
            name: c.summary(unprompted if len(c.values) == len(items) else None)
            for name, c in named.items()
            if c is not None
        }
        bound = np.mean(columns["gt_sam"].values)
        table[task]["share of GT-SAM"] = rounded(np.mean(columns["cascade"].values) / bound)
        proposing = [spent.pop("propose") for spent in seconds]
        table[task]["seconds"] = {
            "propose": rounded(np.mean(proposing)),
            "retrieve": rounded(np.mean([sum(spent.values()) for spent in seconds])),
        }
    return table


def _spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """Return ``count`` items, evenly spread; all if there are no more, or it is None."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def presence_table(bench: Bench, images: dict[str, list[Item]]) -> dict[str, Any]:
    """Every task on images of all kinds: precision, recall and F1 of "the organ is here".

    An image has the organ if it is of the task's kind and its reference is not empty.
    """
    table: dict[str, Any] = {}
    for task in ORGANS:
        variant = bench.variant(task, _MIXED)
        hits = misses = false_alarms = absent = 0
        for kind_task, items in images.items():
            for cached in bench.cached(items, variant):
                here = kind_task == task and bool(cached.reference.any())
                labelled = variant.label(cached).outcomes[0].outcome == "labelled"
                hits += here and labelled
                misses += here and not labelled
                false_alarms += labelled and not here
                absent += not here
        precision = hits / max(1, hits + false_alarms)
        recall = hits / max(1, hits + misses)
        table[task] = {
            "precision": rounded(precision),
            "recall": rounded(recall),
            "F1": rounded(2 * precision * recall / max(1e-9, precision + recall)),
            "present": hits + misses,
            "absent": absent,
        }
    return table


def worst(bench: Bench, images: Callable[[str], list[Item]], count: int) -> list[list[Failure]]:
    """Return the ``count`` worst labels of each task, the worst first."""
    rows = []
    for task in ORGANS:
        variant = bench.variant(task)
        items = images(task)
        scored = []
        for index, cached in enumerate(bench.cached(items, variant)):
            masks = variant.label(cached).masks
            label = masks[0].mask if masks else None
            scored.append(
                (scores(CascadeMasks(masks, ()), cached).get("cascade", 0.0), index, label)
            )
        scored.sort(key=lambda entry: entry[:2])
        row = []
        for score, index, label in scored[:count]:
            image, reference = items[index].load()
            caption = f"{task} {index}: Dice {score:.2f}"
            row.append(Failure(caption, image, reference, label))
        rows.append(row)
    return rows


def main(
    output: Annotated[Path, typer.Option(help="Where proposals are cached.")] = PROJECT
    / "ablation-output",
    results: Annotated[Path, typer.Option(help="Where the tables go.")] = PROJECT
    / "benchmarks"
    / "results",
    phantoms_each: Annotated[
        int, typer.Option("--phantoms", min=2, help="Of the test bank, each kind.")
    ] = 100,
    tune: Annotated[int, typer.Option(min=2, help="Of the tune bank, each kind.")] = 60,
    paper: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The paper's recipe on so many images of each set (default: all). It encodes an "
            "image five times: most of the time goes there.",
        ),
    ] = None,
    real: Annotated[
        int | None, typer.Option(min=2, help="Real images of each task, evenly spread.")
    ] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only some of the tables.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Measure the recipe and write ``ablation.json`` and ``ablation.md``."""
    torch.set_num_threads(threads)
    parts = part or PARTS
    if unknown := set(parts) - set(PARTS):
        raise typer.BadParameter(f"--part {sorted(unknown)[0]!r} must be one of {', '.join(PARTS)}")
    ours = Bench(output / "cached", "bundled")
    papers = None if paper == 0 else Bench(output / "cached", "paper-bundled")
    results.mkdir(parents=True, exist_ok=True)
    path = results / "ablation.json"
    entries: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    weights = identify(ours.config)
    if entries.get("weights") != weights:
        entries = {"weights": weights, "methods": {}}

    def test_bank(task: str) -> list[Item]:
        return phantoms(ORGANS[task], "test", phantoms_each)

    def tune_bank(task: str) -> list[Item]:
        # Failures lead to changes of the recipe, and the test bank must not influence it.
        return phantoms(ORGANS[task], "tune", tune)

    sets: dict[str, Callable[[str], list[Item]]] = {"phantoms (test bank)": test_bank}
    sets["real images"] = lambda task: _spread(real_images(task, output), real)
    for name in parts:
        if name == "options":
            entries["options"] = options_table(ours, tune)
        elif name == "methods":
            for title, images in sets.items():
                if table := methods_table(ours, papers, images, paper):
                    entries["methods"][title] = table
        elif name == "presence":
            entries["presence"] = {
                title: presence_table(ours, {task: images(task) for task in ORGANS})
                for title, images in sets.items()
                if all(images(task) for task in ORGANS)
            }
        elif name == "failures":
            failure_sheet(worst(ours, tune_bank, 6), PROJECT / "docs" / "bundled-failures.png")
        else:
            entries["clip"] = _clip_accuracy(ours.clip)
        path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    text = markdown(entries)
    (results / "ablation.md").write_text(text, encoding="utf-8")
    Console().print(text, highlight=False, markup=False)


def _clip_accuracy(clip: ClipModel) -> dict[str, Any]:
    entries = asdict(naming(clip, "test", 30))
    figures = {k: v if isinstance(v, int) else rounded(v) for k, v in entries.items()}
    return {**figures, "known": len(known_classes())}


if __name__ == "__main__":
    typer.run(main)
