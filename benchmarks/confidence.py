"""Fit the labels' confidence on phantoms of the tune bank, and measure it on other images.

    python benchmarks/confidence.py            # fit, measure, write confidence-output/
    python benchmarks/confidence.py --ship     # the same, and put the fit into the package
    python benchmarks/confidence.py --clip FILE    # the same with other weights of the bundled CLIP

Three sets are labelled by the cascade, image by image in this process and without a limit of
confidence: phantoms of the ``tune`` bank (the only ones that the models are fitted on), phantoms of
the ``test`` bank, and the real images of ``benchmarks/realdata.py``, if they are at hand. Half of
the phantoms do not show the organ; there the Dice is 0, and each counts a quarter in the fit: one
image in five is without the organ.

Two tables are printed. The first has Spearman's rank correlation of confidence and Dice, the mean
absolute error, and the mean Dice of the rest if the least confident 20 % are dropped. The second
shows what ``task.min_confidence`` of the shipped tasks does: Dice on images with the organ, and the
number of images without it that get a label. ``reliability.png`` draws expected against true Dice.
What is labelled is cached in ``confidence-output/`` as long as the recipe is the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import realdata
import torch
import typer
from intervals import interval
from recipes import ORGANS
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from salip_ray import Cascade, load_config
from salip_ray.cascade import confidence
from salip_ray.cascade.cascade import CascadeResult
from salip_ray.config import ImageConfig
from salip_ray.evaluation import dice
from salip_ray.models.bundled.clip_net import load_bundled_clip
from salip_ray.models.bundled.phantoms import TARGETS, make_phantom
from salip_ray.models.clip.load import ClipModel
from salip_ray.models.identity import identify
from salip_ray.schema import Image, ImageRef, Mask
from salip_ray.sources.decode import decode
from salip_ray.sources.references import References

DROPPED = 0.2
_ABSENT_WEIGHT = 0.25  # of an image without the organ; there are as many as with it
_BINS = 5
_COLOURS = {"lungs": (60, 60, 200), "brain": (60, 140, 40), "fetal_head": (190, 110, 20)}  # BGR
_Item = tuple[str, str, Callable[[], tuple[Image, Mask]]]


@dataclass(frozen=True)
class Case:
    """One image: its task, whether the organ is there, and what the confidence is made of.

    ``features`` are None if the cascade gave no label; the last two are None if the task names no
    signs. ``dice`` is 0 if the organ is not there.
    """

    task: str
    name: str
    present: bool
    features: tuple[float | None, ...] | None
    dice: float


def phantoms(bank: str, count: int) -> Iterator[_Item]:
    for task, kind in ORGANS.items():
        for present, index in itertools.product((True, False), range(count)):
            name = f"{kind}-{index:04d}{'' if present else '-absent'}"
            yield task, name, partial(_load_phantom, kind, index, bank, present)


def _load_phantom(kind: str, index: int, bank: str, present: bool) -> tuple[Image, Mask]:
    phantom = make_phantom(kind, index, bank=bank, target=present)
    return phantom.image, phantom.mask(TARGETS[kind])


def real(folder: Path) -> Iterator[_Item]:
    for task, (name, lay_out, _) in realdata.SETS.items():
        images, masks = lay_out(realdata.real_data() / name, folder / "inputs" / task)
        load = partial(_load_real, References.open(str(masks)), load_config(task).image)
        for path in _listed(images):
            yield task, path.name, partial(load, path)


def _load_real(references: References, limits: ImageConfig, path: Path) -> tuple[Image, Mask]:
    mask = references.find(ImageRef(str(path)))
    assert mask is not None, path
    return decode(path.read_bytes(), str(path), limits), references.load(mask) > 0


def _listed(images: Path) -> list[Path]:
    if images.is_dir():
        return sorted(images.iterdir())
    return [Path(line) for line in images.read_text().replace('"', "").splitlines()[1:]]


def labelled(name: str, items: Iterator[_Item], folder: Path, weights: Path | None) -> list[Case]:
    """Return the cases of a set, labelled now, or earlier by the same recipe and CLIP."""
    recipes = {task: load_config(task, overrides=["task.min_confidence=0"]) for task in ORGANS}
    clip = None if weights is None else ClipModel(*load_bundled_clip(weights), torch.device("cpu"))
    other = [] if weights is None else [hashlib.sha256(weights.read_bytes()).hexdigest()]
    key = json.dumps(
        {task: [config.recipe(), identify(config), *other] for task, config in recipes.items()},
        sort_keys=True,
        default=str,
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    if not lines or lines[0] != key:
        lines = [key]
        file.write_text(key + "\n")
    cases = {}
    for line in lines[1:]:
        saved = json.loads(line)
        features = saved["features"] and tuple(saved["features"])
        cases[saved["task"], saved["name"]] = Case(**{**saved, "features": features})
    cascades: dict[str, Cascade] = {}
    wanted = []
    with file.open("a") as output:
        for task, image_name, load in items:
            wanted.append((task, image_name))
            if wanted[-1] in cases:
                continue
            if task not in cascades:
                cascades[task] = Cascade(recipes[task], clip=clip)
            image, reference = load()
            case = _case(task, image_name, cascades[task](image), reference)
            cases[wanted[-1]] = case
            output.write(json.dumps(vars(case)) + "\n")
            output.flush()
            sys.stderr.write(f"\r{name}: {len(cases)}")
    sys.stderr.write("\n")
    return [cases[key] for key in wanted]


def _case(task: str, name: str, result: CascadeResult, reference: Mask) -> Case:
    present = bool(reference.any())
    if not result.masks:
        return Case(task, name, present, None, 0.0)
    (label,) = result.masks
    assert label.sam is not None
    assert label.proposed is not None
    assert label.clip is not None
    evidence = [s.clip.evidence for s in result.selections if s.clip.evidence is not None]
    features = (
        *(label.sam.predicted_iou, label.sam.stability, label.proposed.agreement),
        *((label.clip.presence, float(np.mean(evidence))) if evidence else (None, None)),
    )
    score = dice(label.mask, reference) if present else 0.0
    return Case(task, name, present, features, score)


def matrix(cases: list[Case], count: int) -> npt.NDArray[np.float64]:
    results = np.array([case.features[:count] for case in cases if case.features], np.float64)
    return np.where(np.isnan(results), np.nanmin(results, axis=0), results)


def fitted(cases: list[Case]) -> dict[confidence.ModelName, confidence.Calibration]:
    """Fit the model of the outline on images with the organ, that of presence on all with signs."""
    present = [case for case in cases if case.features and case.present]
    cases = [case for case in cases if case.features and None not in case.features]
    return {
        "outline": confidence.fit(
            matrix(present, len(confidence.FEATURES)), [case.dice for case in present]
        ),
        "presence": confidence.fit(
            matrix(cases, len(confidence.PRESENCE_FEATURES)),
            [case.dice for case in cases],
            [1.0 if case.present else _ABSENT_WEIGHT for case in cases],
        ),
    }


def estimate(models: dict[confidence.ModelName, confidence.Calibration], case: Case) -> float:
    """Return the expected Dice of a case; 0 without a label."""
    if case.features is None:
        return 0.0
    known = [value for value in case.features if value is not None]
    return models["outline" if None in case.features else "presence"](*known)


def measured(cases: list[Case], expected: list[float]) -> dict[str, Any]:
    """Return the figures of one set or task."""
    true = np.array([case.dice for case in cases])
    guess = np.array(expected)
    remaining = np.argsort(guess, kind="stable")[math.floor(DROPPED * len(guess)) :]
    return {
        "labels": len(cases),
        "spearman": round(float(spearmanr(guess, true).statistic), 3),
        "mean_absolute_error": round(float(np.abs(guess - true).mean()), 3),
        "bias": round(float((guess - true).mean()), 3),
        "dice_all": round(float(true.mean()), 3),
        "dice_without_lowest_20_percent": round(float(true[remaining].mean()), 3),
        "worst_dice_all": round(float(true.min()), 3),
        "worst_dice_kept": round(float(true[remaining].min()), 3),
    }


def limited(cases: list[Case], expected: list[float], limit: float) -> dict[str, Any]:
    """Return the effect of a limit of confidence on one task: Dice, and labels of absent organs."""
    confident = np.array(
        [bool(c.features) and e >= limit for c, e in zip(cases, expected, strict=True)]
    )
    present = np.array([case.present for case in cases])
    dices = np.array([case.dice for case in cases])
    retained = np.where(confident, dices, 0.0)
    right = np.where(present, retained, ~confident)
    before = np.where(present, dices, [not case.features for case in cases])
    return {
        "with": int(present.sum()),
        "dice": round(float(dices[present].mean()), 4),
        "dice_interval": interval(dices[present]),
        "dice_limited": round(float(retained[present].mean()), 4),
        "dice_limited_interval": interval(retained[present]),
        "left_empty": int((present & ~confident).sum()),
        "without": int((~present).sum()),
        "false_labels": sum(bool(case.features) and not case.present for case in cases),
        "false_labels_limited": int((confident & ~present).sum()),
        "score": round(float(before.mean()), 4),
        "score_interval": interval(before.astype(float)),
        "score_limited": round(float(right.mean()), 4),
        "score_limited_interval": interval(right.astype(float)),
    }


def draw(sets: dict[str, tuple[list[Case], list[float]]], file: Path) -> None:
    """Draw expected against true Dice, one panel per set: labels, and means of equal bins."""
    side, edge = 360, 46
    panels = []
    for title, (cases, expected) in sets.items():
        panel = np.full((side + 2 * edge, side + 2 * edge, 3), 255, np.uint8)

        def at(x: float, y: float) -> tuple[int, int]:
            return edge + round(x * side), edge + round((1 - y) * side)

        for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
            cv2.line(panel, at(tick, 0), at(tick, 1), (230, 230, 230), 1)
            cv2.line(panel, at(0, tick), at(1, tick), (230, 230, 230), 1)
            _text(panel, f"{tick:g}", (at(tick, 0)[0] - 10, side + edge + 16))
            _text(panel, f"{tick:g}", (edge - 34, at(0, tick)[1] + 4))
        cv2.line(panel, at(0, 0), at(1, 1), (150, 150, 150), 1, cv2.LINE_AA)
        for case, guess in zip(cases, expected, strict=True):
            cv2.circle(panel, at(guess, case.dice), 3, _COLOURS[case.task], 1, cv2.LINE_AA)
        order = np.argsort(expected, kind="stable")
        means = [
            (
                float(np.mean([expected[i] for i in part])),
                float(np.mean([cases[i].dice for i in part])),
            )
            for part in np.array_split(order, _BINS)
        ]
        for one, other in itertools.pairwise(means):
            cv2.line(panel, at(*one), at(*other), (0, 0, 0), 2, cv2.LINE_AA)
        for mean in means:
            cv2.circle(panel, at(*mean), 6, (0, 0, 0), -1, cv2.LINE_AA)
        _text(panel, title, (edge, 18), 0.5)
        _text(panel, "confidence", (edge + side // 2 - 34, side + 2 * edge - 12))
        _text(panel, "Dice", (edge + 4, edge + 14))
        for row, (task, colour) in enumerate(_COLOURS.items()):
            _text(panel, task, (edge + 10, edge + 40 + 16 * row), colour=colour)
        panels.append(panel)
    cv2.imwrite(str(file), np.hstack(panels))


def _text(
    panel: Image,
    text: str,
    at: tuple[int, int],
    size: float = 0.4,
    colour: tuple[int, int, int] = (40, 40, 40),
) -> None:
    cv2.putText(panel, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def main(
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = realdata.PROJECT
    / "confidence-output",
    tune: Annotated[
        int, typer.Option(min=10, help="Tune phantoms of each kind to fit on, with and without.")
    ] = 120,
    test: Annotated[
        int, typer.Option(min=5, help="Test phantoms of each kind, with and without.")
    ] = 40,
    ship: Annotated[bool, typer.Option(help="Write the fit into the package.")] = False,
    clip: Annotated[
        Path | None, typer.Option(help="Weights of the bundled CLIP, if not the shipped ones.")
    ] = None,
) -> None:
    """Fit the confidence on the tune bank and measure it on the test bank and on real images."""
    if ship and clip:
        raise typer.BadParameter("--ship is for the shipped weights: replace them first")
    sets = {"tune": labelled("tune", phantoms("tune", tune), output, clip)}
    models = fitted(sets["tune"])
    sets["test"] = labelled("test", phantoms("test", test), output, clip)
    if realdata.real_data().is_dir():
        sets["real"] = labelled("real", real(output), output, clip)
    expected = {name: [estimate(models, case) for case in cases] for name, cases in sets.items()}
    figures: dict[str, Any] = {"ranking": {}, "limit": {}}
    console = Console(width=120)
    table = _table("set", "task", "labels", "rho", "MAE", "bias", "Dice", "best 80 %", "worst")
    limits = _table("set", "task", "with", "Dice", "limited", "empty", "without", "labelled")
    for heading in ("limited", "score", "limited"):
        limits.add_column(heading, justify="right")
    for name, cases in sets.items():
        for task in ("all", *dict.fromkeys(case.task for case in cases)):
            chosen = [i for i, case in enumerate(cases) if task in {"all", case.task}]
            labels = [i for i in chosen if cases[i].features]
            results = measured([cases[i] for i in labels], [expected[name][i] for i in labels])
            figures["ranking"].setdefault(name, {})[task] = results
            table.add_row(name, task, *(str(value) for value in list(results.values())[:-1]))
            if task == "all":
                continue
            limit = load_config(task).task.min_confidence
            results = limited(
                [cases[i] for i in chosen], [expected[name][i] for i in chosen], limit
            )
            figures["limit"].setdefault(name, {})[task] = results
            shown = {k: v for k, v in results.items() if not k.endswith("interval")}
            limits.add_row(name, task, *(str(value) for value in shown.values()))
    titles = {
        "tune": "tune phantoms (fitted on)",
        "test": "test phantoms (never seen)",
        "real": "real images (never seen)",
    }
    shown_cases = {
        titles[name]: [
            (case, guess)
            for case, guess in zip(sets[name], expected[name], strict=True)
            if case.features
        ]
        for name in sets
    }
    draw(
        {
            title: ([case for case, _ in pairs], [guess for _, guess in pairs])
            for title, pairs in shown_cases.items()
        },
        output / "reliability.png",
    )
    (output / "confidence-figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    about = {
        "fitted_on": f"phantoms 0 to {tune - 1} of the tune bank, each kind with and without organ",
        "absent_weight": _ABSENT_WEIGHT,
        "made_by": "benchmarks/confidence.py --ship",
    }
    (output / "confidence.json").write_text(confidence.to_json(models, about))
    if ship:
        Path(confidence.__file__).with_name("confidence.json").write_text(
            confidence.to_json(models, about)
        )
    console.print(table)
    console.print(limits)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in {"set", "task"} else "right")
    return table


if __name__ == "__main__":
    typer.run(main)
